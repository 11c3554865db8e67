"""The production plan: two sheets at most, a place for each requirement, and figures that the scripts print."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pdf import write_pdf
from podium.settings import ROOT

PLAN = ROOT / "docs" / "production-plan.md"
REQUIREMENTS = {
    "auditable-predictions": "podium verify ID",
    "auditable-retrains": "signed record",
    "weekly-retraining": 'schedule = "weekly"',
    "rollback": "Rollback",
    "data-sourced": "SHA-256",
    "market-close": "PredictBatch",
    "on-demand": "test_url",
    "autoscaling": "PredictParts",
    "near-real-time": "millisecond",
    "high-availability": "Two zones",
    "fault-tolerance": "compare-and-set",
    "cost": "deploy/costs.py",
}


def paragraph(anchor: str) -> str:
    text = PLAN.read_text()
    start = text.index(f'<a id="{anchor}"></a>')
    return text[start : text.index("\n\n", start)]


@pytest.mark.parametrize("anchor", REQUIREMENTS)
def test_each_requirement_has_its_paragraph(anchor: str) -> None:
    assert REQUIREMENTS[anchor] in paragraph(anchor)


def test_the_costs_are_those_that_the_script_prints() -> None:
    def total(*options: str) -> dict[str, int]:
        command = [sys.executable, str(ROOT / "deploy" / "costs.py"), "--json", *options]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return {size: round(sum(items.values())) for size, items in found.items()}

    text = paragraph("cost")
    for dollars in total().values():
        assert f"{dollars:,}" in text
    assert f"{total('--no-waf', '--no-access-log')['large']:,} of the last" in text


def test_the_appendix_has_the_table_of_the_script() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "costs.py"), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    appendix = (PLAN.parent / "production-plan-appendix.md").read_text()
    for size in found.values():
        for item, dollars in size.items():
            assert re.search(rf"\| {re.escape(item)} \|.*\b{dollars:,.2f}\b", appendix), item
        assert f"**{sum(size.values()):,.2f}**" in appendix


def test_tasks_of_the_plan_exist() -> None:
    tasks = (ROOT / "docs" / "reference" / "tasks.md").read_text()
    for name in ("Ingest", "PredictBatch", "CheckDeadline", "RetrainDue", "Rollback", "PredictParts", "Monitor"):
        assert name in PLAN.read_text() and f"## {name}\n" in tasks


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_it_has_two_sheets(tmp_path: Path) -> None:
    assert write_pdf(PLAN, tmp_path / "plan.pdf") <= 2
    assert len(re.findall(rb"/Type\s*/Page\b", PLAN.with_suffix(".pdf").read_bytes())) <= 2
