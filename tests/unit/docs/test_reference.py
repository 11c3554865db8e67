"""The pages of docs/reference are those that docs/generate.py makes of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from podium.cli.main import COMMANDS
from podium.settings import ROOT


def test_the_committed_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PODIUM_BUCKET": "other"})
    assert result.returncode == 0, result.stderr


def test_every_command_has_a_section() -> None:
    sections = re.findall(r"^## podium (.+)$", (ROOT / "docs/reference/cli.md").read_text(), re.MULTILINE)
    assert {section.split()[0] for section in sections} == set(COMMANDS)
    assert {"config show", "models list", "models promote", "projects check"} <= set(sections)
