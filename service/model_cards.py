"""The model card: what a version is, what it was made of, how good it is, who let it serve (after Mitchell et al., 2019)."""

from __future__ import annotations

from typing import Any

from podium.inference.served_model import ServedModel
from podium.registry.audit_log import AuditEntry
from service.json_schemas import describe_inputs

NOT_A_METRIC = {"rank", "model", "eval_metric", "fit_time", "pred_time_val", "tied_with_best", "ci_low", "ci_high"}
POLICIES = {
    "warn": "an unknown value is answered with a warning",
    "reject": "an unknown value is refused",
    "ignore": "an unknown value is answered",
}


def build_model_card(snapshot: ServedModel, act: AuditEntry | None) -> dict[str, Any]:
    """Everything that is known of what serves, as plain values; `act` is the one that let it serve."""
    manifest, target = snapshot.manifest, snapshot.signature.target
    best, configuration = manifest.leaderboard[0], manifest.configuration
    return {
        "project": snapshot.project,
        "title": configuration.get("title") or snapshot.project,
        "intended_use": configuration.get("about", ""),
        "version": snapshot.version,
        "champion": snapshot.champion,
        "created": manifest.created,
        "author": manifest.author,
        "manifest_sha256": snapshot.manifest_sha256,
        "target": {"name": target.name, "task": target.task, "classes": list(target.classes)},
        "inputs": [
            {
                "name": column.name,
                "kind": column.display_kind,
                "optional": column.nullable,
                "trained_on": describe_inputs(column),
                "unknown": POLICIES.get(column.handle_unknown, "") if column.is_text else "",
            }
            for column in snapshot.signature.request_columns
        ],
        "data": manifest.data,
        "split": configuration.get("split", {}),
        "metric": {key: best.get(key) for key in ("eval_metric", "score_val", "score_test", "ci_low", "ci_high")},
        "figures": {key: value for key, value in best.items() if key not in NOT_A_METRIC and isinstance(value, int | float)},
        "tied": [row["model"] for row in manifest.leaderboard[1:] if row.get("tied_with_best")],
        "act": act.model_dump(mode="json", exclude={"signatures"}) if act else None,
        "code": {"git": manifest.git, "lock": manifest.lock, "libraries": manifest.libraries},
    }
