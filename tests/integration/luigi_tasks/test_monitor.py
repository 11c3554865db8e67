"""Monitoring with the luigi command: days in order, alarms to a receiver, deadlines."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from podium.local import LocalCloud
from podium.project import InboxOptions, Project
from podium.registry.promotion import PromotionContext
from podium.storage.reports import read_report, reported_days
from service.webhooks import Webhooks
from tests import tables
from tests.conftest import publish_champion
from tests.e2e.test_cli import podium
from tests.integration.luigi_tasks.test_pipeline import luigi
from tests.integration.monitoring.test_daily_report import OPTIONS, Log

pytestmark = pytest.mark.slow
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


class Receiver:
    """Accepts alarms, or refuses them, and verifies their signatures."""

    def __init__(self) -> None:
        self.alarms: list[dict[str, str]] = []
        self.status, webhooks = 204, Webhooks([SECRET])
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if receiver.status < 400 and webhooks.accept(headers, body, datetime.now(UTC).timestamp()):
                    receiver.alarms.append(json.loads(body)["data"])
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alarms"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def test_days_are_reported_in_order_and_alarms_are_delivered(
    cloud: LocalCloud, cloud_context: PromotionContext, environment: dict[str, str], receiver: Receiver
) -> None:
    project = Project(name="watched", target="price", **OPTIONS)
    log = Log(cloud_context, publish_champion(cloud_context, tables.prices(800), project))
    today = datetime.now(UTC).date()
    days = [str(today - timedelta(days=back)) for back in (4, 3, 2, 1)]
    for day in (days[0], days[2]):
        frame, values = log.sample()
        ids = log.write(day, frame)
        wrong = 100_000 if day == days[2] else 0
        log.label(day, ids, [repr(float(value + wrong)) for value in values])
    log.write(str(today), log.sample()[0])
    so_far = podium(cloud, "monitor", "watched", "--json")
    assert so_far.returncode == 0, so_far.stderr
    assert (json.loads(so_far.stdout)["rows"], "drift" in json.loads(so_far.stdout)) == (400, True)
    assert reported_days(cloud_context.store, "watched") == []
    environment |= {"PODIUM_ALARM_URL": receiver.url, "PODIUM_ALARM_SECRET": SECRET}
    early = luigi(environment, "Monitor", "watched", "--date", str(today), "--local-scheduler")
    assert early.returncode != 0 and "has not ended" in early.stdout + early.stderr
    receiver.status = 500
    refused = luigi(environment, "Monitor", "watched", "--local-scheduler")
    assert refused.returncode != 0 and "not accepted by PODIUM_ALARM_URL" in refused.stdout + refused.stderr
    assert reported_days(cloud_context.store, "watched") == days[:2]  # the alarm will be sent again
    receiver.status = 204
    result = luigi(environment, "Monitor", "watched", "--local-scheduler")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [(alarm["project"], alarm["day"], alarm["kind"]) for alarm in receiver.alarms] == [("watched", days[2], "labels")]
    assert "instead of" in receiver.alarms[0]["message"]
    assert reported_days(cloud_context.store, "watched") == days
    assert [read_report(cloud_context.store, "watched", day)["rows"] for day in days] == [400, 0, 400, 0]
    again = luigi(environment, "Monitor", "watched", "--local-scheduler")
    assert again.returncode == 0 and len(receiver.alarms) == 1


def test_a_day_before_the_first_prediction_has_an_empty_report(
    cloud: LocalCloud, cloud_context: PromotionContext, environment: dict[str, str]
) -> None:
    log = Log(cloud_context, publish_champion(cloud_context, tables.prices(), Project(name="young", target="price", **OPTIONS)))
    log.write(str(datetime.now(UTC).date()), log.sample()[0])
    result = luigi(environment, "Monitor", "young", "--local-scheduler")
    assert result.returncode == 0 and "no predictions" in result.stdout, result.stdout + result.stderr
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    assert reported_days(cloud_context.store, "young") == [yesterday]


def test_a_missed_deadline_raises_an_alarm(
    cloud: LocalCloud, cloud_context: PromotionContext, environment: dict[str, str], receiver: Receiver
) -> None:
    urls = {"input_url": "s3://podium/drop/due.csv", "output_url": "s3://podium/drop/due-predictions.csv"}
    inbox = InboxOptions(**urls, deadline="00:00 Asia/Tokyo")  # of today, which has passed everywhere but on the date line
    publish_champion(cloud_context, tables.prices(), Project(name="due", target="price", inbox=inbox, **OPTIONS))
    environment |= {"PODIUM_ALARM_URL": receiver.url, "PODIUM_ALARM_SECRET": SECRET}
    missing = luigi(environment, "CheckDeadline", "due", "--local-scheduler")
    assert missing.returncode != 0 and "are not complete" in missing.stdout + missing.stderr
    rows = tables.prices(20).drop(columns="price").to_csv(index=False).encode()
    cloud_context.store.create("drop/due.csv", rows)
    late = luigi(environment, "PredictBatch", "due", "--local-scheduler")
    assert late.returncode == 0, late.stdout + late.stderr
    assert [alarm["kind"] for alarm in receiver.alarms] == ["deadline"]  # one id for both, so the second is a repetition
    assert luigi(environment, "CheckDeadline", "due", "--local-scheduler").returncode == 0
