"""No request generated from the OpenAPI document, valid or not, causes a server error."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from podium.local.http_client import Client
from tests.conftest import PROMOTERS

pytestmark = pytest.mark.slow


@pytest.mark.timeout(280)
def test_no_generated_request_causes_a_server_error(service: Client, tmp_path: Path) -> None:
    """Run schemathesis with examples, edge cases and violations of every operation."""
    command = [str(Path(sysconfig.get_path("scripts")) / "schemathesis"), "run", f"http://{service.host}/openapi.json"]
    command += [
        "--checks",
        "not_a_server_error",
        "--max-examples",
        "8",
        "--mode",
        "all",
        "--phases",
        "examples,coverage,fuzzing",
    ]
    command += ["--seed", "1", "--max-failures", "5", "--header", f"Authorization: Bearer {PROMOTERS['ann']}"]
    command += ["--generation-deterministic", "--no-color"]
    others = r"^/projects/(?!mixed/|prices/|odd/|\{)"  # projects of other tests are of these forms
    same = r"^/predict$|^/projects/\{project\}/(predict|batch)$|/versions/\{version\}/infer$"  # as another path with its schema
    command += ["--exclude-path-regex", f"{others}|{same}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-500:]
    assert service.get("/livez").status == 200
