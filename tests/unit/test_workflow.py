"""The GitHub workflow for pushes."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

from podium.settings import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "push.yml"


def test_the_workflow_matches_the_schema() -> None:
    tool = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command = [str(tool), "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_workflow_refers_to_existing_files() -> None:
    text = WORKFLOW.read_text()
    assert (ROOT / ".ci" / "run").exists() and ".ci/run" in text
    for file in re.findall(r"-f (Dockerfile\.\w+)", text):
        assert (ROOT / file).exists()
    assert "podium champions" in text
    assert not re.findall(r"(AKIA|ghp_)\w+", text)
