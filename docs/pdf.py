"""Write a page of the documentation as PDF (A4): `python docs/pdf.py docs/production-plan.md`. Needs Chromium."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from markdown import markdown
from playwright.sync_api import sync_playwright

STYLE = """
@page { size: A4; margin: 13mm 15mm }
body { font: 10pt/1.35 "Liberation Sans", Arial, sans-serif; color: #111 }
h1 { font-size: 16pt; margin: 0 0 6pt }
h2 { break-after: avoid; font-size: 12pt; margin: 10pt 0 3pt }
p { margin: 0 0 5pt }
img { width: 100% }
a { color: inherit }
code { font: 9pt "Liberation Mono", monospace }
"""


def write_pdf(page: Path, target: Path) -> int:
    """Write the page, and return the number of sheets."""
    body = markdown(page.read_text(), extensions=["tables", "fenced_code"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        with tempfile.NamedTemporaryFile("w", suffix=".html", dir=page.parent) as file:  # beside its images
            file.write(f"<!doctype html><html lang=en><title>{page.stem}</title><style>{STYLE}</style>{body}</html>")
            file.flush()
            tab.goto(f"file://{file.name}")
            data = tab.pdf(prefer_css_page_size=True, tagged=True)
        browser.close()
    target.write_bytes(data)
    return len(re.findall(rb"/Type\s*/Page\b", data))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        source = Path(name).resolve()
        print(source.with_suffix(".pdf"), write_pdf(source, source.with_suffix(".pdf")), "sheets")
