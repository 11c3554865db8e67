"""`podium drill` on a local installation passes, and leaves the bucket as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from podium.local import LocalCloud
from podium.local.services import promotion_context
from podium.project import Project
from podium.registry.validation import Validator
from tests import tables
from tests.conftest import publish_champion

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]


def test_the_drill_passes_and_writes_nothing(own_cloud: LocalCloud, validator: Validator) -> None:
    project = Project(name="drilled", data="s3://podium/none", target="price", families=("linear",), n_trials=1)
    context = replace(promotion_context(own_cloud), validator=validator)
    publish_champion(context, tables.prices(), project)
    context.store.create("inbox/drilled/rows.csv", b"area,rooms\n30,2\n")
    before = sorted(info.key for info in context.store.list_objects(""))
    command = [sys.executable, "-m", "podium.cli.main", "drill", "drilled", "--seconds", "4", "--json"]
    result = subprocess.run(command, env=own_cloud.environment, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr
    checks = json.loads(result.stdout)["checks"]
    assert len(checks) == 12 and all(passed for passed, _ in checks)
    assert sorted(info.key for info in context.store.list_objects("")) == before
