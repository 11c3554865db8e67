"""The pages of docs/reference are those that docs/generate.py makes of the code."""

from __future__ import annotations

import os
import subprocess
import sys

from podium.settings import ROOT


def test_the_committed_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PODIUM_BUCKET": "other"})
    assert result.returncode == 0, result.stderr
