"""A small HTTP client for the service, with one connection per request."""

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
    """A client for one service. It uses the standard library because httpx is only a development dependency."""

    def __init__(self, url: str, seconds: float = 60) -> None:
        self.host, self._seconds = urlsplit(url).netloc, seconds

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request. Raises OSError, including if the connection closes before the response is complete."""
        connection = HTTPConnection(self.host, timeout=self._seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except IncompleteRead as error:
            raise ConnectionError("the connection closed before the response was complete") from error
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
        boundary = uuid.uuid4().hex
        disposition = f'form-data; name="file"; filename="{name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: text/csv\r\n\r\n"
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        return self.post(path, body, {"content-type": f"multipart/form-data; boundary={boundary}"})

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float) -> None:
        """Poll a condition until it is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"condition not met within {seconds} s")
            time.sleep(0.05)
