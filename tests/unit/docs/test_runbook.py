"""The runbook: a row for each alarm, and commands that exist."""

from __future__ import annotations

import re

import yaml
from cfnlint.decode import decode

from podium.settings import ROOT

RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text()


def test_each_alarm_has_a_row() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
    alarms = {rule["alert"] for group in groups for rule in group["rules"]}
    for name in ("podium", "service"):
        template, _ = decode(str(ROOT / "deploy" / f"{name}.yaml"))
        alarms |= {key for key, each in template["Resources"].items() if each["Type"] == "AWS::CloudWatch::Alarm"}
    rows = " ".join(line.split("|")[1] for line in RUNBOOK.splitlines() if line.startswith("| `"))
    assert [alarm for alarm in sorted(alarms) if f"`{alarm}`" not in rows] == []


def test_its_commands_exist() -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text()
    commands = {found.strip() for found in re.findall(r"podium ((?:models |retrains )?[a-z]+)", RUNBOOK)} - {"with", "config"}
    assert len(commands) > 8
    for command in commands:
        assert f"## podium {command}\n" in reference, command
