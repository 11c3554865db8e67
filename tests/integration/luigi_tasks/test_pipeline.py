"""The task graph, run with the luigi command on SeaweedFS."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
from datetime import date
from pathlib import Path
from typing import Any

import luigi as luigi_package
import pandas as pd
import pytest

from luigi_tasks.batch import DayParameter
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import put_table, start_service
from podium.models.metrics import CLASSIFICATION
from podium.prediction_log.lineage import lineage
from podium.project import Project
from podium.registry.audit_entry import AuditEntry
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext
from podium.registry.versions import list_versions, read_manifest
from podium.settings import ROOT
from podium.storage.object_store import NotFound, Store
from podium.training.families import DEFAULT_FAMILIES
from tests import tables
from tests.conftest import Put, publish_version

LUIGI = str(Path(sysconfig.get_path("scripts")) / "luigi")


def project(environment: dict[str, str], name: str, **entries: Any) -> None:
    folder = Path(environment["PODIUM_PROJECTS"]) / name
    folder.mkdir(exist_ok=True)
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in {"data": f"s3://podium/raw/{name}.csv", "n_trials": 1, "budget": "8s", **entries}.items()
    ]
    (folder / "project.toml").write_text("\n".join(lines))


def luigi(environment: dict[str, str], task: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [LUIGI, "--module", "luigi_tasks", task, "--project", name, *(options or ("--local-scheduler",))]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


def stages(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split()[2] for line in result.stdout.splitlines() if line.startswith("✓")]


def champion(context: PromotionContext, project: str) -> AuditEntry | None:
    return read_champion(context.store, project, context.trust.promoters)


def keys(store: Store, prefix: str) -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


@pytest.fixture(scope="module")
def finished(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the pipeline of a project once; return its environment."""
    folder = tmp_path_factory.mktemp("projects")
    environment = {**cloud.environment, "PODIUM_PROJECTS": str(folder)}
    project(environment, "flowers", target="kind")
    put_table(cloud, "raw/flowers.csv", tables.flowers())
    events = {
        "OPENLINEAGE__TRANSPORT__TYPE": "file",
        "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": str(folder / "events"),
        "OPENLINEAGE__TRANSPORT__APPEND": "true",
    }
    result = luigi({**environment, **events}, "Pipeline", "flowers", "--local-scheduler", "--workers", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    order = stages(result)
    assert order[:2] == ["Ingest", "Clean"]
    assert sorted(order) == sorted(
        [
            "Ingest",
            "Clean",
            "Explore",
            "Features",
            "Select",
            *["Train"] * len(DEFAULT_FAMILIES),
            "Ensemble",
            "Rank",
            "Compare",
            "Publish",
            "Promote",
            "Pipeline",
        ]
    )
    assert "now the champion" in result.stdout
    return environment


def test_the_stages_emit_lineage_events(finished: dict[str, str], cloud_context: PromotionContext) -> None:
    lines = (Path(finished["PODIUM_PROJECTS"]) / "events").read_text().splitlines()
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in map(json.loads, lines):
        runs.setdefault(event["run"]["runId"], []).append(event)
    assert all([event["eventType"] for event in events] == ["START", "COMPLETE"] for events in runs.values())
    jobs = {events[0]["job"]["name"]: events[0] for events in runs.values()}
    assert {"flowers.Ingest", "flowers.Clean", "flowers.Train.linear", "flowers.Publish", "flowers.Promote"} <= jobs.keys()
    (cleaned,) = jobs["flowers.Clean"]["outputs"]
    assert cleaned["namespace"] == "s3://podium" and cleaned["name"].endswith("/clean.parquet")
    assert cleaned["name"] in {dataset["name"] for dataset in jobs["flowers.Train.linear"]["inputs"]}


def test_the_lineage_of_a_snapshot_names_its_version(finished: dict[str, str], cloud_context: PromotionContext) -> None:
    entry = champion(cloud_context, "flowers")
    assert entry
    (version,) = lineage(cloud_context.store, cloud_context.trust, "flowers", entry.version)
    (same,) = lineage(cloud_context.store, cloud_context.trust, "flowers", version.snapshot[:12])
    assert same == version and version.source == "s3://podium/raw/flowers.csv"
    assert version.promotions[0].startswith("1: promote by ")
    with pytest.raises(NotFound):
        lineage(cloud_context.store, cloud_context.trust, "flowers", "v0")


def test_a_run_publishes_a_complete_version(finished: dict[str, str], cloud_context: PromotionContext) -> None:
    entry = champion(cloud_context, "flowers")
    assert entry is not None
    manifest, _ = read_manifest(cloud_context.store, "flowers", entry.version, cloud_context.trust.trainers)
    prefix = f"versions/flowers/{manifest.version}/"
    assert {key.removeprefix(prefix) for key in keys(cloud_context.store, prefix)} == {*manifest.files, "manifest.json"}
    assert {"leaderboard.csv", "report.html", "golden.json", "models/linear.pkl", "models/lightgbm.pkl"} <= set(manifest.files)
    board = list(csv.DictReader(io.StringIO(cloud_context.store.read(prefix + "leaderboard.csv").data.decode())))
    assert [row["rank"] for row in board] == ["1", "2", "3", "4", "5"]
    assert list(board[0]) == [
        "rank",
        "model",
        "eval_metric",
        "score_val",
        "score_test",
        *CLASSIFICATION,
        "fit_time",
        "pred_time_val",
        "ci_low",
        "ci_high",
        "tied_with_best",
        "better_than_constant",
    ]
    assert manifest.signature.target.classes == (1, 2, 3)
    assert manifest.configuration["target"] == "kind"


def test_a_finished_run_is_not_repeated(finished: dict[str, str], cloud_context: PromotionContext) -> None:
    before = keys(cloud_context.store, "")
    again = luigi(finished, "Pipeline", "flowers")
    assert (again.returncode, stages(again)) == (0, [])
    assert "done before" in again.stdout
    assert keys(cloud_context.store, "") == before


@pytest.mark.slow
def test_only_publishing_needs_a_signing_key(finished: dict[str, str], cloud: LocalCloud) -> None:
    keyless = {**finished, "PODIUM_SIGNING_KEY": ""}
    project(finished, "keyless", target="kind", families=["linear"])
    put_table(cloud, "raw/keyless.csv", tables.flowers())
    result = luigi(keyless, "Compare", "keyless")
    assert result.returncode == 0, result.stdout + result.stderr
    result = luigi(keyless, "Publish", "keyless")
    assert result.returncode != 0
    assert "PODIUM_SIGNING_KEY is not set" in result.stdout + result.stderr


class Touch:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_a_pickle_in_place_of_a_stage_output_is_not_executed(
    environment: dict[str, str], cloud: LocalCloud, cloud_store: Store, tmp_path: Path
) -> None:
    project(environment, "poisoned", target="kind", families=["linear"])
    put_table(cloud, "raw/poisoned.csv", tables.flowers())
    assert luigi(environment, "Clean", "poisoned").returncode == 0
    (prefix,) = (key.removesuffix("clean.parquet") for key in keys(cloud_store, "runs/poisoned/") if "clean" in key)
    marker = tmp_path / "executed"
    malicious = pickle.dumps(Touch(marker))
    reservation = json.dumps({"version": "../x", "created": "", "run": "", "snapshot": "", "parent": None}).encode()
    candidates = ["candidates/linear.pkl", "candidates/linear.arrow"]
    for name in ["features.json", "features.pkl", *candidates, "reservation.json", "publish.json"]:
        cloud.client().put_object(
            Bucket="podium", Key=prefix + name, Body=reservation if name == "reservation.json" else malicious
        )
    for stage in ("Select", "Rank", "Promote"):
        result = luigi(environment, stage, "poisoned")
        assert result.returncode == 30, (stage, result.stdout + result.stderr)
        assert "Traceback" not in result.stdout and "cannot be read" in result.stdout, result.stdout
    assert not marker.exists()
    assert not keys(cloud_store, "versions/poisoned/")


def test_the_default_day_is_today_when_the_task_is_created() -> None:
    today = [date(2026, 1, 1)]

    class Daily(luigi_package.Task):
        day = DayParameter(today=lambda: today[0])

    assert Daily().day == date(2026, 1, 1)
    today[0] = date(2026, 1, 2)
    assert Daily().day == date(2026, 1, 2)
    assert Daily(day=date(2025, 5, 5)).day == date(2025, 5, 5)


@pytest.mark.slow
@pytest.mark.long
def test_every_stage_can_run_by_itself(finished: dict[str, str]) -> None:
    for stage in ("Clean", "Explore", "Rank", "Publish"):
        result = luigi(finished, stage, "flowers")
        assert (result.returncode, stages(result)) == (0, []), result.stderr


@pytest.mark.slow
def test_a_changed_option_starts_a_new_run_and_a_changed_title_does_not(
    finished: dict[str, str], cloud_context: PromotionContext
) -> None:
    project(finished, "flowers", target="kind", title="Flowers")
    assert stages(luigi(finished, "Pipeline", "flowers")) == []
    project(finished, "flowers", target="kind", families=["linear", "lightgbm", "random-forest"], seed=5)
    result = luigi(finished, "Pipeline", "flowers")
    assert result.returncode == 0
    assert "Ingest" not in stages(result)
    assert "Clean" in stages(result)
    assert stages(result).count("Train") == 3
    entry = champion(cloud_context, "flowers")
    assert entry is not None
    assert entry.version == list_versions(cloud_context.store, "flowers")[-1]
    assert entry.sequence == 2


@pytest.mark.slow
def test_changed_data_starts_a_new_run_and_identical_bytes_do_not(
    environment: dict[str, str], cloud: LocalCloud, cloud_context: PromotionContext
) -> None:
    project(environment, "prices-luigi", target="price", families=["linear"])
    put_table(cloud, "raw/prices-luigi.csv", tables.prices())
    first = luigi(environment, "Pipeline", "prices-luigi")
    assert first.returncode == 0, first.stderr
    cloud.client().put_object(Bucket="podium", Key="raw/prices-luigi.csv", Body=tables.prices().to_csv(index=False).encode())
    assert stages(luigi(environment, "Pipeline", "prices-luigi")) == []
    put_table(cloud, "raw/prices-luigi.csv", tables.prices(seed=7))
    second = luigi(environment, "Pipeline", "prices-luigi")
    assert stages(second)[0] == "Ingest"
    assert len(list_versions(cloud_context.store, "prices-luigi")) == 2
    entry = champion(cloud_context, "prices-luigi")
    assert entry is not None
    newest = entry.version
    put_table(cloud, "raw/prices-luigi.csv", tables.prices())
    assert luigi(environment, "Pipeline", "prices-luigi").returncode == 0
    entry = champion(cloud_context, "prices-luigi")
    assert entry is not None
    assert entry.version == newest, "a finished old run must not replace the champion"


FAILURES = [
    ({"target": "nothing"}, 30, "columns: petal, sepal, kind"),
    ({"target": "kind", "metric": "rmse"}, 30, "accuracy"),
    ({"target": "kind", "data": "s3://podium/raw/absent.csv"}, 35, "there is no s3://podium/raw/absent.csv"),
    ({"target": "kind", "data": "s3://elsewhere/x.csv"}, 35, "PODIUM_SOURCE_BUCKETS"),
    ({"target": "kind", "familys": []}, 1, "familys"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "code", "text"), FAILURES)
def test_a_failure_has_a_reason_and_an_exit_code(
    environment: dict[str, str], cloud: LocalCloud, entries: Any, code: int, text: str
) -> None:
    put_table(cloud, "raw/bad.csv", tables.flowers())
    project(environment, "bad", **entries)
    result = luigi(environment, "Pipeline", "bad")
    assert result.returncode == code, result.stdout + result.stderr
    assert text in result.stdout + result.stderr


def test_an_unknown_project_is_reported(environment: dict[str, str]) -> None:
    result = luigi(environment, "Pipeline", "nothing")
    assert result.returncode == 1
    assert "project not found" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_stopped(
    environment: dict[str, str], cloud: LocalCloud, cloud_context: PromotionContext
) -> None:
    project(environment, "killed", target="kind", n_trials=4)
    put_table(cloud, "raw/killed.csv", tables.flowers(900))
    command = [LUIGI, "--module", "luigi_tasks", "Pipeline", "--project", "killed", "--local-scheduler"]
    child = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    done = 0
    for line in child.stdout:
        done += line.startswith("✓")
        if "Train" in line:
            break
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert champion(cloud_context, "killed") is None
    result = luigi(environment, "Pipeline", "killed")
    assert result.returncode == 0, result.stderr
    assert done + len(stages(result)) >= 13
    assert "Clean" not in stages(result)
    assert len(list_versions(cloud_context.store, "killed")) == 1


@pytest.mark.slow
def test_the_pipeline_runs_with_luigid(environment: dict[str, str], cloud: LocalCloud, tmp_path: Path) -> None:
    project(environment, "central", target="price", families=["linear"])
    put_table(cloud, "raw/central.csv", tables.prices())
    port = free_ports(1)[0]
    command = [sys.executable, "-c", "import sys; from luigi.cmdline import luigid; sys.exit(luigid())"]
    luigid = Process(
        [*command, "--port", str(port), "--address", "127.0.0.1", "--state-path", str(tmp_path / "state")],
        tmp_path / "luigid.log",
        environment,
    )
    try:
        luigid.wait_for(f"http://127.0.0.1:{port}/")
        result = luigi(
            environment, "Pipeline", "central", "--scheduler-host", "127.0.0.1", "--scheduler-port", str(port), "--workers", "2"
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "now the champion" in result.stdout
    finally:
        luigid.stop()


def new_tables(shared: Path | None) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    from sklearn import datasets

    frames: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "wine": (datasets.load_wine(as_frame=True).frame, {"target": "target"}),
        "diabetes": (datasets.load_diabetes(as_frame=True, scaled=False).frame, {"target": "target"}),
    }
    if shared:
        columns = {column: {"na_values": ["0"]} for column in ("PlGlcConc", "BloodP", "SkinThick", "TwoHourSerIns", "BMI")}
        frames["pima"] = pd.read_csv(shared / "pima" / "pima.csv"), {"target": "target", "columns": columns}
    return frames


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param("wine", marks=pytest.mark.long), pytest.param("diabetes", marks=pytest.mark.long), "pima"]
)
def test_a_new_table_needs_only_a_short_project_file(
    name: str, environment: dict[str, str], cloud: LocalCloud, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = request.getfixturevalue("shared_data") if name == "pima" else None
    frame, entries = new_tables(shared)[name]
    put_table(cloud, f"raw/{name}.csv", frame)
    folder = Path(environment["PODIUM_PROJECTS"]) / name
    folder.mkdir()
    lines = {"data": f"s3://podium/raw/{name}.csv", **entries}
    (folder / "project.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in lines.items()))
    result = luigi(environment, "Pipeline", name, "--budget", "15s", "--local-scheduler", "--workers", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    port = free_ports(1)[0]
    service = start_service({**environment, "PODIUM_DASK_WORKERS": "0", "PODIUM_DEFAULT_PROJECT": name}, port, tmp_path)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        inputs = frame.drop(columns="target")
        medians = inputs.median().tolist()
        record = [
            int(value) if (inputs[column] % 1 == 0).all() else value for column, value in zip(inputs, medians, strict=True)
        ]
        response = client.post_json("/predict", record)
        assert response.status == 200, response.text
        classes = {"wine": (0, 1, 2), "diabetes": None, "pima": (0, 1)}
        expected = classes[name]
        prediction = response.json()["predictions"][0]["prediction"]
        assert prediction in expected if expected else 50 < prediction < 300
        status = next(model for model in client.get("/status").json()["serving"] if model["project"] == name)
        assert status["fast_path"]
        if name == "pima":
            zero = client.post_json("/predict", [6, 148, 72, 35, 0, 33.6, 0.627, 50])
            none = client.post_json("/predict", [6, 148, 72, 35, None, 33.6, 0.627, 50])
            assert zero.json()["predictions"] == none.json()["predictions"]
    finally:
        service.stop()


@pytest.mark.slow
def test_a_table_of_many_files_is_trained_again_when_one_is_added(
    environment: dict[str, str], cloud: LocalCloud, cloud_context: PromotionContext
) -> None:
    folder = Path(environment["PODIUM_PROJECTS"]) / "many-files"
    folder.mkdir()
    lines = ['data = "s3://podium/raw/many-files/"', 'target = "kind"', 'families = ["linear"]', "n_trials = 1"]
    (folder / "project.toml").write_text("\n".join([*lines, "cleaning.max_rows = 500"]))
    for part, rows in enumerate((200, 250, 300)):
        file = io.BytesIO()
        tables.flowers(rows, seed=part).to_parquet(file)
        cloud.client().put_object(Bucket="podium", Key=f"raw/many-files/part-{part}.parquet", Body=file.getvalue())
        if part:
            result = luigi(environment, "Pipeline", "many-files", "--local-scheduler", "--workers", "2")
            assert result.returncode == 0, result.stdout + result.stderr
            expected = "450 rows in 2 files" if part == 1 else "750 rows in 3 files; a random sample of 500 is used"
            assert expected in result.stdout
    entry = champion(cloud_context, "many-files")
    assert entry and entry.champion
    manifest, _ = read_manifest(cloud_context.store, "many-files", entry.champion, cloud_context.trust.trainers)
    assert manifest.data["url"] == "s3://podium/raw/many-files/"
    again = luigi(environment, "Pipeline", "many-files", "--local-scheduler")
    assert again.returncode == 0 and stages(again) == []


@pytest.mark.slow
def test_a_manual_promotion_or_rollback_runs_once_per_request(
    environment: dict[str, str], cloud_context: PromotionContext, put_champion: Put
) -> None:
    entries: dict[str, Any] = {"name": "by-hand", "target": "kind", "families": ("linear",), "n_trials": 1}
    first = put_champion(tables.flowers(600), **entries).version
    second = publish_version(cloud_context, tables.flowers(600, seed=9), Project(data="s3://podium/none", **entries)).version

    def run(task: str, *options: str) -> subprocess.CompletedProcess[str]:
        return luigi(environment, task, "by-hand", "--reason", "by hand", "--local-scheduler", *options)

    def current() -> tuple[str | None, int]:
        entry = champion(cloud_context, "by-hand")
        return (entry.champion, entry.sequence) if entry else (None, 0)

    assert run("PromoteVersion", "--version", second).returncode == 0
    assert current() == (second, 2)
    assert run("PromoteVersion", "--version", second).returncode == 0
    assert run("Rollback").returncode == 0
    assert current() == (first, 3)
    assert run("Rollback").returncode == 0
    repeated = run("PromoteVersion", "--version", second)  # this request has already run
    assert repeated.returncode != 0 and "add --request" in repeated.stdout
    assert current() == (first, 3)
    assert run("PromoteVersion", "--version", second, "--request", "again").returncode == 0
    assert current() == (second, 4)
    receipt = next(key for key in keys(cloud_context.store, "runs/by-hand/receipts/") if "Rollback" in key)
    cloud_context.store.delete(receipt)  # as if the process had ended before writing it
    assert run("Rollback").returncode != 0
    assert current() == (second, 4)
    assert receipt in keys(cloud_context.store, "runs/by-hand/receipts/")
    stale = run("PromoteVersion", "--version", first, "--expect", first)
    assert stale.returncode != 0
    assert "AliasMoved" in stale.stdout
    assert current() == (second, 4)
