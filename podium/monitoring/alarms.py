"""Send alarms as signed notifications (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

from podium.storage.object_store import StoreError

TIMEOUT = 10.0


class AlarmNotSent(StoreError):
    """The receiver of alarms did not accept one."""


def send_alarm(url: str, secret: str, message_id: str, data: dict[str, Any]) -> None:
    """Send an alarm. A repeated one has the same `message_id`, which the receiver can recognise. Raises AlarmNotSent."""
    now = int(time.time())
    timestamp = datetime.fromtimestamp(now, UTC).isoformat()
    body = json.dumps({"type": f"podium.{data['kind']}", "timestamp": timestamp, "data": data}).encode()
    headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(now)}
    if secret:
        content = f"{message_id}.{now}.".encode() + body
        signature = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(signature).decode()}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT):
            pass
    except (urllib.error.URLError, OSError) as error:
        raise AlarmNotSent(f"the alarm of {data['project']} was not accepted by PODIUM_ALARM_URL: {error}") from None
