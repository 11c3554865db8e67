"""The pages in a real browser."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from podium.local.http_client import Client
from tests import tables

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, service: Client) -> Iterator[Page]:
    """A browser page of the service; console errors and failed requests fail the test."""
    complaints: list[str] = []
    opened = browser.new_page(base_url=f"http://{service.host}")
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("requestfailed", lambda request: complaints.append(request.url))
    yield opened
    opened.close()
    assert [
        text for text in complaints if "422" not in text and not text.endswith("/result.csv")
    ] == []  # downloads leave the page


def fill(page: Page, **cells: str) -> None:
    values = {"income": "41000.5", "visits": "3", "since": "2022-05-17", "score": "0.25", **cells}
    for name, text in values.items():
        page.fill(f"[name={name}]", text)
    page.select_option("[name=city]", "Bonn")
    page.select_option("[name=member]", "true")


def test_one_record_is_predicted_and_downloaded(page: Page, service: Client) -> None:
    page.goto("/")
    page.click("text=mixed")
    assert page.locator("tr.champion").first.locator("td").first.inner_text() == "1"
    fill(page)
    page.locator("button", has_text="Predict").first.click()
    shown = page.locator("#result .prediction").inner_text()
    expected = service.post_json("/projects/mixed/predict", tables.RECORD).json()["predictions"][0]["prediction"]
    assert shown == expected
    assert page.locator("#result tbody tr").count() == 5
    assert page.input_value("[name=income]") == "41000.5"
    with page.expect_download() as download:
        page.click("text=Download as CSV")
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert rows[0]["prediction"] == expected


def test_an_invalid_field_shows_its_error_and_can_be_corrected(page: Page) -> None:
    page.goto("/projects/mixed")
    fill(page, since="2022-05-17")
    page.eval_on_selector("[name=income]", "field => { field.type = 'text'; field.value = 'much' }")
    page.locator("button", has_text="Predict").first.click()
    assert page.locator("label.wrong small").inner_text().startswith("Enter a number")
    assert (page.input_value("[name=income]"), page.input_value("[name=since]")) == ("much", "2022-05-17")
    page.fill("[name=income]", "40000")
    page.locator("button", has_text="Predict").first.click()
    assert page.locator("#result .prediction").inner_text() in ("yes", "no")


def test_an_uploaded_file_gives_a_table_of_all_models_and_a_csv(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    tables.mixed(150, seed=5).to_csv(path, index=False)
    page.goto("/projects/mixed")
    page.set_input_files("input[type=file]", path)
    page.click("text=Predict the file")
    assert page.locator("#result h2").inner_text() == "150 predictions"
    assert "Showing the first 100 of 150 rows" in page.locator("#result").inner_text()
    assert page.locator("#result tbody tr").count() == 100
    with page.expect_download() as download:
        page.click("text=Download as CSV")
    assert len(list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))) == 150


def test_pages_work_without_scripts_on_a_phone_in_dark_mode(browser: Browser, service: Client) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(f"http://{service.host}/projects/mixed")
    fill(page)
    page.locator("button", has_text="Predict").first.click()
    assert page.locator("#result .prediction").inner_text() in ("yes", "no")
    context.close()


def test_the_api_page_shows_the_fields_of_the_deployed_model(page: Page) -> None:
    page.goto("/docs")
    page.get_by_text("Predict bought", exact=True).click()
    page.wait_for_selector("text=Request body")
    assert "training order" in page.inner_text("#swagger-ui")


def test_the_example_in_the_form_is_no_row_of_the_data(page: Page) -> None:
    page.goto("/projects/mixed")
    page.click("text=Fill with an example")
    income = page.input_value("[name=income]")
    assert income
    assert float(income) not in set(tables.mixed()["income"])
    page.click("button:text-is('Predict')")
    assert page.locator("#result .prediction").inner_text() in ("yes", "no")


def test_a_result_is_sorted_by_a_click_or_the_keyboard(page: Page, tmp_path: Path) -> None:
    tables.mixed(40).drop(columns="bought").to_csv(tmp_path / "rows.csv", index=False)
    page.goto("/projects/mixed")
    page.set_input_files("input[type=file]", tmp_path / "rows.csv")
    page.click("text=Predict the file")

    def incomes() -> list[float]:
        return [
            float(text.replace(",", "")) for text in page.locator(f"#result tbody td:nth-child({column})").all_inner_texts()
        ]

    column = [name.strip() for name in page.locator("#result th").all_inner_texts()].index("income") + 1
    page.click(f"#result th:nth-child({column}) button")
    assert incomes() == sorted(incomes())
    page.focus(f"#result th:nth-child({column}) button")
    page.keyboard.press("Enter")
    assert incomes() == sorted(incomes(), reverse=True)


def test_the_versions_page_shows_states_and_the_promotion_history(page: Page, service: Client) -> None:
    page.goto("/projects/mixed")
    page.click("text=Versions & history")
    assert "Serving" in page.locator("table").first.inner_text()
    assert "a test" in page.locator("table").nth(1).inner_text()
    assert service.get("/projects/mixed/versions").json()["project"] == "mixed"


def test_the_model_card_shows_the_version_and_its_approval(page: Page, service: Client) -> None:
    page.goto("/projects/mixed")
    page.click("text=Model card")
    text = page.inner_text("main")
    card = service.get("/projects/mixed/card").json()
    for fact in (card["version"], card["manifest_sha256"], card["promotion"]["reason"], "income", "lightgbm", "extrapolation"):
        assert fact in text
    assert {gate["name"] for gate in card["promotion"]["evidence"]} >= {"golden-rows", "size"}
    assert card["inputs"][2]["unknown"] == "unseen values: predicted with a warning"
    page.click("text=View as JSON")
    assert card["version"] in page.content()


def test_the_status_is_a_page_in_browsers_and_json_otherwise(page: Page, service: Client) -> None:
    page.goto("/")
    page.click("nav >> text=Status")
    assert "mixed" in page.locator("table").first.inner_text()
    assert service.get("/status").json()["serving"]


def test_no_page_is_wider_than_a_phone(browser: Browser, service: Client, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for path in ("/", "/projects/mixed", "/projects/mixed/card", "/projects/mixed/versions", "/status", "/docs"):
        page.goto(f"http://{service.host}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    context.close()


def test_a_large_file_shows_its_progress(page: Page, tmp_path: Path) -> None:
    tables.mixed(20_000).drop(columns="bought").to_csv(tmp_path / "rows.csv", index=False)
    page.goto("/projects/mixed")
    page.set_input_files("input[type=file]", tmp_path / "rows.csv")
    page.click("text=Predict the file")
    page.wait_for_selector("text=Done", timeout=60_000)
    assert "20,000 rows" in page.locator("#result").inner_text()
    with page.expect_download() as download:
        page.click("text=Download as CSV")
    assert len(Path(download.value.path()).read_text().splitlines()) == 20_001
