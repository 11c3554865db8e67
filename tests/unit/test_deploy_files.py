"""GitHub workflows, Dependabot, the compose file and the Kubernetes manifests, checked by their schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from podium.settings import ROOT

GITHUB, COMPOSE = ROOT / ".github", ROOT / "deploy" / "compose"
WORKFLOW = GITHUB / "workflows" / "push.yml"


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        *(("github-workflows", path) for path in sorted((GITHUB / "workflows").glob("*.yml"))),
        ("dependabot", GITHUB / "dependabot.yml"),
        ("compose-spec", COMPOSE / "compose.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_files_match_their_schemas(schema: str, file: Path) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command = [str(tool), "--builtin-schema", f"vendor.{schema}", str(file)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_workflow_refers_to_existing_files() -> None:
    text = WORKFLOW.read_text()
    for file in re.findall(r"run: (\.ci/[\w-]+)", text):
        assert (ROOT / file).exists()
    for file in re.findall(r"-f (Dockerfile\.\w+)", text):
        assert (ROOT / file).exists()
    assert "podium champions" in text
    assert not re.findall(r"(AKIA|ghp_)\w+", text)


def test_the_variables_of_the_compose_file_are_those_that_a_command_makes() -> None:
    command = [sys.executable, "-m", "podium.cli.main", "keys", "new", "--all", "--json"]
    made = set(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    text = re.sub("(?m)^#.*", "", (COMPOSE / "compose.yaml").read_text())
    without_default = set(re.findall(r"(?<!\$)\$\{(\w+)(?::\?[^}]*)?\}", text))
    assert without_default <= made and made - without_default == {"PODIUM_LOG_KEYS", "PODIUM_REFRESH_SECRETS"}


def test_files_of_the_compose_file_exist() -> None:
    for service in yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE / source).exists()
        if "build" in service:
            assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_the_dashboard_shows_metrics_that_exist() -> None:
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "reference" / "metrics.md").read_text(), re.M))
    panels = json.loads((COMPOSE / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name.removesuffix("_bucket") for each in expressions for name in re.findall(r"[a-z]+(?:_[a-z]+)+", each)}
    assert used - {"model_name", "model_version", "histogram_quantile", "rate_interval"} <= known


@pytest.mark.parametrize("name", ["service.yaml", "tasks.yaml"])
def test_the_manifests_match_the_schemas_of_kubernetes(name: str) -> None:
    for document in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / name).read_text()):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_tasks_of_the_manifests_exist() -> None:
    tasks = (ROOT / "docs" / "reference" / "tasks.md").read_text()
    for document in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "tasks.yaml").read_text()):
        if document["kind"] == "CronJob":
            (container,) = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
            assert f"## {container['args'][0]}\n" in tasks
