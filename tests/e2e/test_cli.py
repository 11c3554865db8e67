"""The `podium` command in a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from podium.cli.main import podium as podium_command
from podium.local import LocalCloud
from podium.local.processes import DidNotStart, Process, free_ports
from podium.local.services import promotion_context
from podium.project import Project
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.validation import Validator
from podium.registry.versions import Manifest
from podium.settings import ROOT
from tests import tables
from tests.conftest import Put, publish_champion, publish_version
from tests.unit.importers import model_files
from tests.unit.importers.payloads import payloads

pytestmark = pytest.mark.slow


def podium(cloud: LocalCloud, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podium.cli.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**cloud.environment, **variables}, capture_output=True, text=True, timeout=100
    )


@pytest.fixture(scope="module")
def versions(put_champion: Put, cloud_context: PromotionContext) -> list[Manifest]:
    """Return a champion and a newer version that is not promoted."""
    entries: dict[str, Any] = {"name": "cli", "target": "kind", "families": ("linear",), "n_trials": 1}
    first = put_champion(tables.flowers(600), **entries)
    return [
        first,
        publish_version(cloud_context, tables.flowers(600, seed=9), Project(data="s3://podium/none", seed=1, **entries)),
    ]


def test_versions_are_listed_promoted_and_rolled_back(cloud: LocalCloud, versions: list[Manifest]) -> None:
    old, new = (manifest.version for manifest in versions)
    listed = json.loads(podium(cloud, "models", "list", "cli", "--json").stdout)
    assert {row["version"]: row["champion"] for row in listed} == {old: True, new: False}
    assert "champion" in podium(cloud, "models", "list", "cli").stdout
    shown = json.loads(podium(cloud, "models", "show", "cli").stdout)
    assert shown["version"] == old
    changed = json.loads(podium(cloud, "models", "diff", "cli", old, new).stdout)["changed"]
    assert changed["configuration.seed"] == [0, 1]
    assert "score.linear" in changed
    dry = podium(cloud, "models", "promote", "cli", new, "--reason", "try", "--dry-run")
    assert (dry.returncode, "would become the champion" in dry.stdout) == (0, True)
    late = podium(cloud, "models", "promote", "cli", new, "--reason", "late", "--expect", new)
    assert (late.returncode, old in late.stderr) == (4, True)
    promoted = podium(cloud, "models", "promote", "cli", new, "--reason", "better", "--expect", old, PODIUM_ACTOR="eve")
    assert promoted.returncode == 0, promoted.stderr
    assert "✓ Golden rows" in promoted.stdout
    trial = podium(cloud, "models", "rollback", "cli", "--reason", "try", "--dry-run")
    assert (trial.returncode, f"{old} would become the champion" in trial.stdout) == (0, True)
    back = podium(cloud, "models", "rollback", "cli", "--reason", "wrong since noon", "--json")
    assert json.loads(back.stdout)["champion"] == old
    history = podium(cloud, "models", "history", "cli").stdout.splitlines()
    assert len(history) == 3
    assert "by eve (key " in history[1] and "): better" in history[1]
    verified = podium(cloud, "models", "verify", "cli")
    assert (verified.returncode, verified.stdout) == (0, "OK: 2 versions, 3 history entries verified\n")


@pytest.mark.timeout(200)
def test_a_leaked_promoter_key_is_retired(own_cloud: LocalCloud, validator: Validator) -> None:
    context = replace(promotion_context(own_cloud), validator=validator)
    project = Project(name="rotated", data="s3://podium/none", target="kind", families=("linear",), n_trials=1)
    first = publish_champion(context, tables.flowers(300), project).version
    second = publish_champion(context, tables.flowers(300, seed=9), project).version
    old, new = context.signer, Signer.new()
    keys = {"PODIUM_TRAINER_KEYS": json.dumps([old.public]), "PODIUM_SIGNING_KEY": new.private}
    both = {**keys, "PODIUM_PROMOTER_KEYS": json.dumps([old.public, new.public])}
    signed = podium(own_cloud, "models", "countersign", "rotated", "--reason", "key 1 leaked", **both)
    assert (signed.returncode, signed.stdout) == (
        0,
        f"{second} is still the champion of rotated (entry 3; previously {first})\n",
    )
    only = {**keys, "PODIUM_PROMOTER_KEYS": json.dumps([new.public])}
    assert podium(own_cloud, "models", "history", "rotated", **only).returncode == 5
    unknown = podium(own_cloud, "models", "history", "rotated", PODIUM_PROMOTER_KEYS=json.dumps([Signer.new().public]))
    assert (unknown.returncode, "signed by an accepted key" in unknown.stderr) == (5, True)
    retired = {**only, "PODIUM_RETIRED_KEYS": json.dumps([old.public])}
    history = podium(own_cloud, "models", "history", "rotated", **retired)
    assert (history.returncode, history.stdout.count("\n"), "Countersigned" in history.stdout) == (0, 3, True)
    back = podium(own_cloud, "models", "rollback", "rotated", "--reason", "worse", **retired)
    assert (back.returncode, f"{first} is now" in back.stdout) == (0, True), back.stderr
    assert podium(own_cloud, "models", "verify", "rotated", **retired).returncode == 0
    assert podium(own_cloud, "fsck", **retired).returncode == 0


@pytest.mark.timeout(200)
def test_an_imported_model_is_promoted_and_an_unused_version_deleted(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "shoes.joblib").write_bytes(model_files.MODELS["xz.joblib"]())
    (tmp_path / "rows.csv").write_text(model_files.people()[[*model_files.NUMBERS, "sex"]].to_csv(index=False))
    arguments = ("models", "import", "shoes", str(tmp_path / "shoes.joblib"), "--target", "sex")
    bare = podium(cloud, *arguments, "--name", "forest")
    assert bare.returncode == 0, bare.stderr
    assert "input height: number" in bare.stdout  # the names are in the file
    assert "output sex: one of female, male" in bare.stdout
    assert bare.stderr == ""
    named = json.loads(podium(cloud, *arguments, "--sample", str(tmp_path / "rows.csv"), "--json").stdout)
    assert (named["champion"], named["data"]["kind"]) == ("shoes", "scikit-learn")
    assert named["leaderboard"][0]["score_test"] > 0.9
    listed = podium(cloud, "models", "list", "shoes").stdout
    assert "ROC AUC n/a" in listed
    promoted = podium(cloud, "models", "promote", "shoes", named["version"], "--reason", "given to us")
    assert promoted.returncode == 0, promoted.stderr
    first = next(
        row["version"] for row in json.loads(podium(cloud, "models", "list", "shoes", "--json").stdout) if not row["champion"]
    )
    dry = podium(cloud, "gc", "shoes", "--days", "0", "--dry-run")
    assert (dry.returncode, first in dry.stdout, "would be deleted" in dry.stderr) == (0, True, True)
    deleted = json.loads(podium(cloud, "gc", "shoes", "--days", "0", "--json").stdout)
    assert [row["version"] for row in deleted] == [first]
    assert "retired" in podium(cloud, "models", "list", "shoes").stdout
    gone = podium(cloud, "models", "promote", "shoes", first, "--reason", "x")
    assert (gone.returncode, "deleted by garbage collection" in gone.stderr) == (5, True)
    assert podium(cloud, "models", "verify", "shoes").returncode == 0


def test_a_malicious_file_is_rejected_with_advice(cloud: LocalCloud, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(payloads(tmp_path)["os-system"])
    rejected = podium(cloud, "models", "import", "shoes", str(file))
    assert (rejected.returncode, "uses posix.system, which is not allowed. Nothing was executed" in rejected.stderr) == (
        3,
        True,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]


def test_an_error_prints_a_message_and_sets_an_exit_code(cloud: LocalCloud, versions: list[Manifest]) -> None:
    cases = [
        (("models", "promote", "cli", "20200101T000000Z-00000000", "--reason", "x"), {}, 5, "version not found"),
        (("models", "rollback", "nobody", "--reason", "x"), {}, 5, "never had a champion"),
        (("models", "list", "cli"), {"PODIUM_TRAINER_KEYS": "[]"}, 1, "podium keys new"),
        (("models", "rollback", "cli", "--reason", "x"), {"PODIUM_SIGNING_KEY": ""}, 1, "podium keys new"),
        (("models", "list", "cli"), {"PODIUM_TRAINER_KEYS": json.dumps([Signer.new().public])}, 5, "not signed"),
        (("models", "promote", "cli"), {}, 2, "Usage"),
    ]
    for arguments, variables, code, text in cases:
        result = podium(cloud, *arguments, **variables)
        assert (result.returncode, text in result.stderr) == (code, True), (arguments, result.stderr)
        assert "Traceback" not in result.stderr


def test_a_new_key_can_be_used_as_printed(cloud: LocalCloud) -> None:
    private, public = (line.split("=", 1)[1] for line in podium(cloud, "keys", "new").stdout.splitlines())
    document = {"a": 1}
    signed = json.dumps({**document, "signatures": Signer.parse(private).sign(document)}).encode()
    assert VerifyingKeys(json.loads(public.strip("'"))).check(signed, "it")["a"] == 1


def test_settings_are_shown_without_secrets(cloud: LocalCloud) -> None:
    text = podium(cloud, "config", "show").stdout
    assert "PODIUM_SIGNING_KEY" in text
    assert cloud.environment["PODIUM_SIGNING_KEY"] not in text
    assert json.loads(cloud.environment["PODIUM_REFRESH_SECRETS"])[0] not in text


def test_the_service_does_not_start_without_keys(cloud: LocalCloud, tmp_path: Path) -> None:
    result = podium(cloud, "serve", "--port", "0", PODIUM_TRAINER_KEYS="[]", PODIUM_CACHE=str(tmp_path))
    assert result.returncode != 0
    assert "PODIUM_TRAINER_KEYS is not set" in result.stderr


def test_projects_are_checked(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "project.toml").write_text('data = "s3://podium/x.csv"\ntarget = "y"\nfamilies = ["lgbm"]')
    result = podium(cloud, "projects", "check", PODIUM_PROJECTS=str(tmp_path))
    assert (result.returncode, "unknown family lgbm" in result.stderr) == (1, True)
    assert podium(cloud, "projects", "check").returncode == 0
    naive = 'target = "y"\nfamilies = ["persistence"]'
    (tmp_path / "bad" / "project.toml").write_text(naive)
    assert "needs a panel" in podium(cloud, "projects", "check", PODIUM_PROJECTS=str(tmp_path)).stderr
    (tmp_path / "bad" / "project.toml").write_text(f'{naive}\npanel = {{ entity = "e", time = "t" }}')
    assert podium(cloud, "projects", "check", PODIUM_PROJECTS=str(tmp_path)).returncode == 0
    rejected = podium(cloud, "predict", "--project", "bad", "--random", "2", "--local", PODIUM_PROJECTS=str(tmp_path))
    assert rejected.returncode == 1 and "random rows have no history" in rejected.stderr


CHECKED = [
    ('metric = "auc"', "did you mean `roc_auc`?"),
    ('metric = "mape"\ntask = "binary"', 'unknown metric "mape"; choose one of accuracy'),
    (
        'split = { kind = "grouped", column = "family" }',
        "unknown column `family` (columns of s3://podium/raw/checked.csv: petal, sepal, kind)",
    ),
]


def test_a_project_is_checked_against_the_metrics_and_its_table(cloud: LocalCloud, tmp_path: Path) -> None:
    table = tables.flowers(30)
    text = table.to_csv(index=False).encode()
    for name, data in {"csv": text, "csv.gz": gzip.compress(text), "parquet": table.to_parquet()}.items():
        cloud.client().put_object(Bucket="podium", Key=f"raw/checked.{name}", Body=data)

    def project(name: str, entries: str, file: str = "checked.csv") -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "project.toml").write_text(f'data = "s3://podium/raw/{file}"\n{entries}')

    for turn, (entries, _) in enumerate(CHECKED):
        project(f"wrong-{turn}", f'target = "kind"\n{entries}')
    for file in ("checked.csv", "checked.parquet", "checked.csv.gz"):
        project(file.replace(".", "-"), 'target = "sort"', file)
    project("right", 'target = "kind"')
    project("unseen", 'target = "kind"', "not-there.csv")
    result = podium(cloud, "projects", "check", PODIUM_PROJECTS=str(tmp_path))
    wrong = result.stderr.splitlines()
    assert (result.returncode, len(wrong)) == (1, 6), result.stderr
    assert [words in line for (_, words), line in zip(CHECKED, wrong[3:], strict=True)] == [True] * 3, wrong
    assert all("unknown column `sort`" in line for line in wrong[:3])
    right, unseen = result.stdout.splitlines()
    assert (right, "unseen: valid, columns not checked: there is no" in unseen) == ("right: valid", True)


def test_a_folder_without_projects_is_reported(cloud: LocalCloud, tmp_path: Path) -> None:
    result = podium(cloud, "projects", "check", PODIUM_PROJECTS=str(tmp_path))
    assert (result.returncode, "no project in" in result.stderr) == (1, True)


def test_reading_commands_time_out_when_the_store_hangs(cloud: LocalCloud) -> None:
    runner = CliRunner()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for arguments in (("models", "list", "cli"), ("models", "history", "cli"), ("fsck",)):
            started = time.monotonic()
            result = runner.invoke(podium_command, arguments, env={**cloud.variables, "AWS_ENDPOINT_URL_S3": url})
            assert time.monotonic() - started < 10
            assert (result.exit_code, "Read timeout" in result.stderr) == (5, True), result.output


def test_listing_reports_an_unsigned_version(cloud: LocalCloud, versions: list[Manifest]) -> None:
    key = "versions/cli/bogus/manifest.json"
    cloud.client().put_object(Bucket="podium", Key=key, Body=b"{}")
    try:
        result = podium(cloud, "models", "list", "cli", "--json")
    finally:
        cloud.client().delete_object(Bucket="podium", Key=key)
    assert (result.returncode, len(json.loads(result.stdout))) == (5, 2)
    assert "the manifest of cli bogus is not signed" in result.stderr


def test_another_program_on_the_port_is_not_mistaken_for_the_started_process(tmp_path: Path) -> None:
    """The other program responds, but the started process does not listen on the port."""
    python, port = sys.executable, free_ports(1)[0]
    other = Process([python, "-m", "http.server", "--bind", "127.0.0.1", str(port)], tmp_path / "other.log", os.environ)
    try:
        other.wait_for(f"http://127.0.0.1:{port}/")
        waits = Process([python, "-c", "import time; time.sleep(1); exit(7)"], tmp_path / "own.log", os.environ)
        with pytest.raises(DidNotStart, match="exited with code 7"):
            waits.wait_for(f"http://127.0.0.1:{port}/")
    finally:
        other.stop()


def test_predict_uses_the_url_of_the_demo(cloud: LocalCloud, tmp_path: Path) -> None:
    """The demo's environment file sets PODIUM_URL."""
    assert f"export PODIUM_URL=http://127.0.0.1:{cloud.service_port}\n" in cloud.write_variables().read_text()
    (tmp_path / "rows.csv").write_text("x\n1\n")
    arguments = ("predict", "--project", "cli", str(tmp_path / "rows.csv"))
    result = CliRunner().invoke(podium_command, arguments, env={"PODIUM_URL": f"http://127.0.0.1:{free_ports(1)[0]}/at"})
    assert (result.exit_code, "/at (" in result.stderr) == (5, True), result.stderr
