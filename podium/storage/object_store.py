"""A bucket with the few moves that Podium needs: read, create once, replace what was seen, list."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

ATTEMPTS = 6
PUT_ID = "put-id"
MAX_DOCUMENT_BYTES = 1 << 20
"""Largest alias, history entry or receipt."""
T = TypeVar("T")


class StoreError(Exception):
    """The store did not answer as it should; the cause is in the text."""


class NotFound(StoreError):
    """No object lies under this key."""


class TooLarge(StoreError):
    """The object has more bytes than the reader accepts."""


class AlreadyExists(StoreError):
    """Somebody else created this object first."""


class PreconditionFailed(StoreError):
    """The object is no longer the one that was seen."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes and the ETag under which they were read."""

    data: bytes
    etag: str


def s3_client(patience: float = 60.0) -> Any:
    """A client from the standard AWS variables; contended writes need patience, who only reads gives up sooner."""
    config = Config(
        connect_timeout=min(5.0, patience),
        read_timeout=patience,
        retries={"mode": "standard", "total_max_attempts": 3 if patience > 10 else 2},
        signature_version="s3v4",
        s3={"addressing_style": "path"} if _has_endpoint() else {},
        max_pool_connections=32,
    )
    return boto3.session.Session().client("s3", config=config)


def _has_endpoint() -> bool:
    return bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


class Store:
    """One bucket; thread-safe."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self.bucket = client, bucket

    @property
    def place(self) -> str:
        """Which bucket of which server this is."""
        return f"{self._client.meta.endpoint_url}/{self.bucket}"

    def of(self, bucket: str) -> Store:
        """Another bucket of the same server."""
        return Store(self._client, bucket)

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str, *, seen: str | None = None, max_bytes: int | None = None) -> Blob:
        """The object; with `seen`, only if it still has that ETag. Raises NotThere, Moved, and TooLarge before reading it."""
        condition = {"IfMatch": seen} if seen else {}
        answer = self._call("GetObject", key, lambda: self._got(key, max_bytes, **condition))
        assert answer is not None
        return answer

    def read_start(self, key: str, max_bytes: int) -> bytes:
        """The first bytes of an object, all of a smaller one. Raises NotThere."""

        def start() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes=0-{max_bytes - 1}")
            with contextlib.closing(answer["Body"]) as body:
                found: bytes = body.read(max_bytes)
                return found

        return self._call("GetObject", key, start)

    def read_if_new(self, key: str, etag: str | None, max_bytes: int = MAX_DOCUMENT_BYTES) -> Blob | None:
        """The object, or None while it still has this ETag. Raises NotThere, TooLarge."""
        condition = {"IfNoneMatch": etag} if etag else {}
        return self._call("GetObject", key, lambda: self._got(key, max_bytes, **condition))

    def etag(self, key: str) -> str:
        """The ETag without the bytes. Raises NotThere."""
        answer: str = self._call("HeadObject", key, lambda: self._client.head_object(Bucket=self.bucket, Key=key)["ETag"])
        return answer

    def exists(self, key: str) -> bool:
        try:
            self.etag(key)
        except NotFound:
            return False
        return True

    def create(self, key: str, data: bytes) -> str:
        """Write a new object and return its ETag. Raises Exists."""
        return self._put(key, data, AlreadyExists, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, seen: str) -> str:
        """Write over the object that has the ETag `seen` and return the new one. Raises Moved."""
        return self._put(key, data, PreconditionFailed, IfMatch=seen)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under a prefix, in order."""
        for entry in self._listed(prefix):
            yield entry["Key"]

    def entries(self, prefix: str) -> Iterator[tuple[str, int, datetime]]:
        """Every key under a prefix with its size and when it was written."""
        for entry in self._listed(prefix):
            yield entry["Key"], entry["Size"], entry["LastModified"]

    def etags(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Every key under a prefix with its ETag."""
        for entry in self._listed(prefix):
            yield entry["Key"], entry["ETag"]

    def states(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Every key under a prefix with its ETag and when it was written."""
        for entry in self._listed(prefix):
            yield entry["Key"], entry["ETag"], entry["LastModified"]

    def delete(self, key: str) -> None:
        """Only garbage collection deletes; a key that is gone already is no error."""
        self._call("DeleteObject", key, lambda: self._client.delete_object(Bucket=self.bucket, Key=key))

    def _listed(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        try:
            for page in pages:
                yield from page.get("Contents", [])
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise StoreError(f"listing {self.url(prefix)}: {error}") from error

    def _got(self, key: str, max_bytes: int | None, **condition: str) -> Blob | None:
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, **condition)
        except ClientError as error:
            if _code(error) in ("304", "NotModified"):
                return None
            raise
        with contextlib.closing(answer["Body"]) as body:
            if max_bytes is not None and answer["ContentLength"] > max_bytes:
                raise TooLarge(f"{self.url(key)} has {answer['ContentLength']} bytes, at most {max_bytes} are accepted")
            return Blob(body.read(), answer["ETag"])

    def _put(self, key: str, data: bytes, lost: type[StoreError], **condition: str) -> str:
        """A conditional write that knows its own: a retry after a lost reply finds its mark on the object."""
        mark = uuid4().hex

        def put() -> str:
            answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata={PUT_ID: mark}, **condition)
            etag: str = answer["ETag"]
            return etag

        try:
            return self._call("PutObject", key, put)
        except (PreconditionFailed, NotFound) as error:
            written = self._mine(key, mark)
            if written:
                return written
            raise lost(f"{self.url(key)} was written by somebody else") from error

    def _mine(self, key: str, mark: str) -> str | None:
        try:
            head = self._call("HeadObject", key, lambda: self._client.head_object(Bucket=self.bucket, Key=key))
        except NotFound:
            return None
        return head["ETag"] if head["Metadata"].get(PUT_ID) == mark else None

    def _call(self, verb: str, key: str, call: Callable[[], T]) -> T:
        """Call, trying again while S3 says that another conditional write is under way (409)."""
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                code = _code(error)
                if code in ("404", "NoSuchKey", "NotFound"):
                    raise NotFound(f"there is no {self.url(key)}") from error
                if code in ("412", "PreconditionFailed"):
                    raise PreconditionFailed(f"{self.url(key)} has changed") from error
                if code not in ("409", "ConditionalRequestConflict") or attempt == ATTEMPTS - 1:
                    raise StoreError(f"{verb} {self.url(key)}: {error}") from error
                time.sleep(random.uniform(0, 0.1 * 2**attempt))
            except (BotoCoreError, ResponseParserError) as error:
                raise StoreError(f"{verb} {self.url(key)}: {error}") from error
        raise AssertionError("unreachable")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
