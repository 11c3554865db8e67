"""Model cards (Mitchell et al., 2019, https://arxiv.org/abs/1810.03993)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from podium.inference.served_model import ServedModel
from podium.registry.audit_entry import AuditEntry
from service.json_schemas import training_values

NOT_A_METRIC = {
    "rank",
    "model",
    "eval_metric",
    "fit_time",
    "pred_time_val",
    "tied_with_best",
    "better_than_constant",
    "ci_low",
    "ci_high",
}
UNKNOWN_POLICIES = {"warn": "unseen values: predicted with a warning", "reject": "unseen values: rejected"}


def build_model_card(served: ServedModel, entry: AuditEntry | None) -> dict[str, Any]:
    """Return the card of a deployed model; `entry` is the promotion that deployed it, if known."""
    manifest, target = served.manifest, served.signature.target
    best, configuration = manifest.leaderboard[0], manifest.configuration
    return {
        "project": served.project,
        "title": configuration.get("title") or served.project,
        "intended_use": configuration.get("intended_use", ""),
        "version": served.version,
        "champion": served.champion,
        "created": manifest.created,
        "author": manifest.author,
        "manifest_sha256": served.manifest_sha256,
        "target": {"name": target.name, "task": target.task, "classes": list(target.classes), "decision": target.decision_rule},
        "inputs": [
            {
                "name": column.name,
                "kind": column.display_kind,
                "optional": column.nullable,
                "trained_on": training_values(column),
                "unknown": UNKNOWN_POLICIES.get(column.handle_unknown, "") if column.kind == "category" else "",
            }
            for column in served.signature.request_columns
        ],
        "data": manifest.data,
        "findings": [asdict(finding) for finding in manifest.findings],
        "split": configuration.get("split", {}),
        "out_of_fold": manifest.is_out_of_fold,
        "metric": {key: best.get(key) for key in ("eval_metric", "score_val", "score_test", "ci_low", "ci_high")},
        "figures": {key: value for key, value in best.items() if key not in NOT_A_METRIC and isinstance(value, int | float)},
        "tied": [row["model"] for row in manifest.leaderboard[1:] if row.get("tied_with_best")],
        "promotion": entry.model_dump(mode="json", exclude={"signatures"}) if entry else None,
        "code": {"git": manifest.git, "lock_sha256": manifest.lock_sha256, "libraries": manifest.libraries},
    }
