"""The task graph by its own command line, on SeaweedFS."""

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
from podium.project import Project
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import read_champion
from podium.registry.promotion import PromotionContext
from podium.registry.versions import list_versions, read_manifest
from podium.settings import ROOT
from podium.storage.object_store import Store
from tests import tables
from tests.conftest import Put, publish_version

LUIGI = str(Path(sysconfig.get_path("scripts")) / "luigi")


def project(environment: dict[str, str], name: str, **entries: Any) -> None:
    folder = Path(environment["PODIUM_PROJECTS"]) / name
    folder.mkdir(exist_ok=True)
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in {"data": f"s3://podium/raw/{name}.csv", "n_trials": 1, **entries}.items()
    ]
    (folder / "project.toml").write_text("\n".join(lines))


def luigi(environment: dict[str, str], task: str, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [LUIGI, "--module", "luigi_tasks", task, "--project", name, *(more or ("--local-scheduler",))]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


def stages(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split()[2] for line in result.stdout.splitlines() if line.startswith("✓")]


def champion(context: PromotionContext, project: str) -> AuditEntry | None:
    return read_champion(context.store, project, context.trust.promoters)


def keys(store: Store, prefix: str) -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


@pytest.fixture(scope="module")
def finished(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a project whose pipeline ran once."""
    folder = tmp_path_factory.mktemp("projects")
    environment = {**cloud.environment, "PODIUM_PROJECTS": str(folder)}
    project(environment, "flowers", target="kind")
    put_table(cloud, "raw/flowers.csv", tables.flowers())
    result = luigi(environment, "Pipeline", "flowers", "--local-scheduler", "--workers", "2")
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
            *["Train"] * 4,
            "Rank",
            "Compare",
            "Publish",
            "Promote",
            "Pipeline",
        ]
    )
    assert "now the champion" in result.stdout
    return environment


def test_a_run_leaves_a_whole_version(finished: dict[str, str], cloud_desk: PromotionContext) -> None:
    found = champion(cloud_desk, "flowers")
    assert found is not None
    manifest, _ = read_manifest(cloud_desk.store, "flowers", found.version, cloud_desk.trust.trainers)
    prefix = f"versions/flowers/{manifest.version}/"
    assert {key.removeprefix(prefix) for key in keys(cloud_desk.store, prefix)} == {*manifest.files, "manifest.json"}
    assert {"leaderboard.csv", "report.html", "golden.json", "models/linear.pkl", "models/lightgbm.pkl"} <= set(manifest.files)
    board = list(csv.DictReader(io.StringIO(cloud_desk.store.read(prefix + "leaderboard.csv").data.decode())))
    assert [row["rank"] for row in board] == ["1", "2", "3", "4"]
    named = ["accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "brier", "fit_time", "pred_time_val"]
    assert list(board[0]) == [
        "rank",
        "model",
        "eval_metric",
        "score_val",
        "score_test",
        *named,
        "ci_low",
        "ci_high",
        "tied_with_best",
    ]
    assert manifest.signature.target.classes == (1, 2, 3)
    assert manifest.configuration["target"] == "kind"


def test_a_finished_run_does_nothing(finished: dict[str, str], cloud_desk: PromotionContext) -> None:
    before = keys(cloud_desk.store, "")
    again = luigi(finished, "Pipeline", "flowers")
    assert (again.returncode, stages(again)) == (0, [])
    assert "done before" in again.stdout
    assert keys(cloud_desk.store, "") == before


def test_stages_need_no_signing_key(finished: dict[str, str], cloud: LocalCloud) -> None:
    keyless = {**finished, "PODIUM_SIGNING_KEY": ""}
    project(finished, "keyless", target="kind", families=["linear"])
    put_table(cloud, "raw/keyless.csv", tables.flowers())
    result = luigi(keyless, "Compare", "keyless")
    assert result.returncode == 0, result.stdout + result.stderr
    result = luigi(keyless, "Publish", "keyless")
    assert result.returncode != 0
    assert "PODIUM_SIGNING_KEY is not set" in result.stdout + result.stderr


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_an_intermediate_does_nothing(
    environment: dict[str, str], cloud: LocalCloud, cloud_store: Store, tmp_path: Path
) -> None:
    project(environment, "poisoned", target="kind", families=["linear"])
    put_table(cloud, "raw/poisoned.csv", tables.flowers())
    assert luigi(environment, "Clean", "poisoned").returncode == 0
    (place,) = (key.removesuffix("clean.parquet") for key in keys(cloud_store, "runs/poisoned/") if "clean" in key)
    mark = tmp_path / "ran"
    bad = pickle.dumps(Touch(mark))
    claim = json.dumps({"version": "../x", "created": "", "run": "", "snapshot": "", "parent": None}).encode()
    candidates = ["candidates/linear.pkl", "candidates/linear.arrow"]
    for name in ["features.json", "features.pkl", *candidates, "reservation.json", "publish.json"]:
        cloud.client().put_object(Bucket="podium", Key=place + name, Body=claim if name == "reservation.json" else bad)
    for stage in ("Select", "Rank", "Promote"):
        result = luigi(environment, stage, "poisoned")
        assert result.returncode == 30, (stage, result.stdout + result.stderr)
        assert "Traceback" not in result.stdout and "cannot be read" in result.stdout, result.stdout
    assert not mark.exists()
    assert not keys(cloud_store, "versions/poisoned/")


def test_a_day_is_todays_when_the_task_is_made() -> None:
    today = [date(2026, 1, 1)]

    class Daily(luigi_package.Task):
        day = DayParameter(today=lambda: today[0])

    assert Daily().day == date(2026, 1, 1)
    today[0] = date(2026, 1, 2)
    assert Daily().day == date(2026, 1, 2)
    assert Daily(day=date(2025, 5, 5)).day == date(2025, 5, 5)


def test_every_stage_can_be_asked_for_by_itself(finished: dict[str, str]) -> None:
    for stage in ("Clean", "Explore", "Rank", "Publish"):
        result = luigi(finished, stage, "flowers")
        assert (result.returncode, stages(result)) == (0, []), result.stderr


def test_changed_configuration_is_a_new_run_and_a_changed_title_is_not(
    finished: dict[str, str], cloud_desk: PromotionContext
) -> None:
    project(finished, "flowers", target="kind", title="Flowers")
    assert stages(luigi(finished, "Pipeline", "flowers")) == []
    project(finished, "flowers", target="kind", families=["linear", "lightgbm", "random-forest"], seed=5)
    result = luigi(finished, "Pipeline", "flowers")
    assert result.returncode == 0
    assert "Ingest" not in stages(result)
    assert "Clean" in stages(result)
    assert stages(result).count("Train") == 3
    found = champion(cloud_desk, "flowers")
    assert found is not None
    assert found.version == list_versions(cloud_desk.store, "flowers")[-1]
    assert found.sequence == 2


def test_changed_data_is_a_new_run_and_the_same_bytes_are_not(
    environment: dict[str, str], cloud: LocalCloud, cloud_desk: PromotionContext
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
    assert len(list_versions(cloud_desk.store, "prices-luigi")) == 2
    found = champion(cloud_desk, "prices-luigi")
    assert found is not None
    newest = found.version
    put_table(cloud, "raw/prices-luigi.csv", tables.prices())
    assert luigi(environment, "Pipeline", "prices-luigi").returncode == 0
    found = champion(cloud_desk, "prices-luigi")
    assert found is not None
    assert found.version == newest, "a finished old run does not move production back"


FAILURES = [
    ({"target": "nothing"}, 30, "it has: petal, sepal, kind"),
    ({"target": "kind", "metric": "rmse"}, 30, "accuracy"),
    ({"target": "kind", "data": "s3://podium/raw/absent.csv"}, 35, "there is no s3://podium/raw/absent.csv"),
    ({"target": "kind", "data": "s3://elsewhere/x.csv"}, 35, "PODIUM_SOURCE_BUCKETS"),
    ({"target": "kind", "familys": []}, 1, "familys"),
]


@pytest.mark.parametrize(("entries", "code", "text"), FAILURES)
def test_failures_have_a_reason_and_an_exit_code(
    environment: dict[str, str], cloud: LocalCloud, entries: Any, code: int, text: str
) -> None:
    put_table(cloud, "raw/bad.csv", tables.flowers())
    project(environment, "bad", **entries)
    result = luigi(environment, "Pipeline", "bad")
    assert result.returncode == code, result.stdout + result.stderr
    assert text in result.stdout + result.stderr


def test_a_project_that_does_not_exist_is_named(environment: dict[str, str]) -> None:
    result = luigi(environment, "Pipeline", "nothing")
    assert result.returncode == 1
    assert "project not found" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_killed_run_is_resumed(environment: dict[str, str], cloud: LocalCloud, cloud_desk: PromotionContext) -> None:
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
    assert champion(cloud_desk, "killed") is None
    result = luigi(environment, "Pipeline", "killed")
    assert result.returncode == 0, result.stderr
    assert done + len(stages(result)) >= 13
    assert "Clean" not in stages(result)
    assert len(list_versions(cloud_desk.store, "killed")) == 1


def test_it_runs_with_luigid_as_well(environment: dict[str, str], cloud: LocalCloud, tmp_path: Path) -> None:
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

    found: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "wine": (datasets.load_wine(as_frame=True).frame, {"target": "target"}),
        "diabetes": (datasets.load_diabetes(as_frame=True, scaled=False).frame, {"target": "target"}),
    }
    if shared:
        marks = {column: {"na_values": ["0"]} for column in ("PlGlcConc", "BloodP", "SkinThick", "TwoHourSerIns", "BMI")}
        found["pima"] = pd.read_csv(shared / "pima" / "pima.csv"), {"target": "target", "columns": marks}
    return found


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["wine", "diabetes", "pima"])
def test_a_new_table_needs_a_few_lines_and_no_code(
    name: str, environment: dict[str, str], cloud: LocalCloud, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shared = request.getfixturevalue("shared_data") if name == "pima" else None
    frame, entries = new_tables(shared)[name]
    put_table(cloud, f"raw/{name}.csv", frame)
    folder = Path(environment["PODIUM_PROJECTS"]) / name
    folder.mkdir()
    lines = {"data": f"s3://podium/raw/{name}.csv", **entries}
    (folder / "project.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in lines.items()))
    result = luigi(environment, "Pipeline", name, "--local-scheduler", "--workers", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    port = free_ports(1)[0]
    service = start_service({**environment, "PODIUM_DASK_WORKERS": "0", "PODIUM_DEFAULT_PROJECT": name}, port, tmp_path)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        inputs = frame.drop(columns="target")
        middle = inputs.median().tolist()
        whole = [int(value) if (inputs[column] % 1 == 0).all() else value for column, value in zip(inputs, middle, strict=True)]
        answer = client.post_json("/predict", whole)
        assert answer.status == 200, answer.text
        kinds = {"wine": (0, 1, 2), "diabetes": None, "pima": (0, 1)}
        expected = kinds[name]
        got = answer.json()["predictions"][0]["prediction"]
        assert got in expected if expected else 50 < got < 300
        status = next(each for each in client.get("/status").json()["serving"] if each["project"] == name)
        assert status["fast_path"]
        if name == "pima":
            zero = client.post_json("/predict", [6, 148, 72, 35, 0, 33.6, 0.627, 50])
            none = client.post_json("/predict", [6, 148, 72, 35, None, 33.6, 0.627, 50])
            assert zero.json()["predictions"] == none.json()["predictions"]
    finally:
        service.stop()


def test_acts_by_hand_are_done_once_a_request(
    environment: dict[str, str], cloud_desk: PromotionContext, put_champion: Put
) -> None:
    entries: dict[str, Any] = {"name": "by-hand", "target": "kind", "families": ("linear",), "n_trials": 1}
    one = put_champion(tables.flowers(600), **entries).version
    two = publish_version(cloud_desk, tables.flowers(600, seed=9), Project(data="s3://podium/none", **entries)).version

    def act(task: str, *more: str) -> subprocess.CompletedProcess[str]:
        return luigi(environment, task, "by-hand", "--reason", "by hand", "--local-scheduler", *more)

    def stands() -> tuple[str | None, int]:
        entry = champion(cloud_desk, "by-hand")
        return (entry.champion, entry.sequence) if entry else (None, 0)

    assert act("PromoteVersion", "--version", two).returncode == 0
    assert stands() == (two, 2)
    assert act("PromoteVersion", "--version", two).returncode == 0
    assert act("Rollback").returncode == 0
    assert stands() == (one, 3)
    assert act("Rollback").returncode == 0
    assert act("PromoteVersion", "--version", two).returncode == 0  # that request was met
    assert stands() == (one, 3)
    assert act("PromoteVersion", "--version", two, "--request", "again").returncode == 0
    assert stands() == (two, 4)
    receipt = next(key for key in keys(cloud_desk.store, "runs/by-hand/receipts/") if "Rollback" in key)
    cloud_desk.store.delete(receipt)  # as if the process had died before it wrote it
    assert act("Rollback").returncode == 0
    assert stands() == (two, 4)
    assert receipt in keys(cloud_desk.store, "runs/by-hand/receipts/")
    late = act("PromoteVersion", "--version", one, "--expect", one)
    assert late.returncode != 0
    assert "AliasMoved" in late.stdout
    assert stands() == (two, 4)
