"""A small HTTP client of the service, one connection a call."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, IncompleteRead
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Calls to one service."""

    def __init__(self, url: str, seconds: float = 60) -> None:
        self.host, self._seconds = urlsplit(url).netloc, seconds

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Raises OSError, also for an answer that breaks off."""
        connection = HTTPConnection(self.host, timeout=self._seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except IncompleteRead as error:
            raise ConnectionError("the answer broke off") from error
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        return self.request("POST", path, body, headers)

    def post_json(self, path: str, value: object) -> Answer:
        return self.post(path, json.dumps(value).encode(), {"content-type": "application/json"})

    def post_form(self, path: str, fields: Mapping[str, str]) -> Answer:
        return self.post(path, urlencode(fields).encode(), {"content-type": "application/x-www-form-urlencoded"})

    def post_file(self, path: str, data: bytes, name: str = "rows.csv") -> Answer:
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        return self.post(path, body, {"content-type": f"multipart/form-data; boundary={mark}"})

    @staticmethod
    def wait_until(happened: Callable[[], bool], seconds: float) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s")
            time.sleep(0.05)
