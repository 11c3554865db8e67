"""An S3 bucket with conditional writes: read, create once, replace if unchanged, list."""

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

MAX_ATTEMPTS = 6
WRITE_ID = "put-id"
MAX_DOCUMENT_BYTES = 1 << 20
"""Maximum size of an alias, an audit-log entry or a receipt."""
T = TypeVar("T")


class StoreError(Exception):
    """The object store failed or its content is not valid; the message gives the cause."""


class NotFound(StoreError):
    """There is no object with this key."""


class TooLarge(StoreError):
    """The object is larger than the reader accepts."""


class AlreadyExists(StoreError):
    """Another writer created this object first."""


class PreconditionFailed(StoreError):
    """The object has changed since its ETag was read."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of an object and their ETag."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing. `modified` has a resolution of one second."""

    key: str
    etag: str
    size: int
    modified: datetime


def s3_client(timeout: float = 60.0) -> Any:
    """Return a client configured from the standard AWS environment variables.

    `timeout` is in seconds. Contended writes need a long timeout; use a short one for reads that should fail fast.
    """
    config = Config(
        connect_timeout=min(5.0, timeout),
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": 3 if timeout > 10 else 2},
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
        self.client, self.bucket = client, bucket

    @property
    def location(self) -> str:
        """The server and the bucket."""
        return f"{self.client.meta.endpoint_url}/{self.bucket}"

    def with_bucket(self, bucket: str) -> Store:
        """Return another bucket on the same server."""
        return Store(self.client, bucket)

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> Blob:
        """Return an object; if `if_match` is set, the object must have this ETag.

        Raises NotFound, PreconditionFailed or TooLarge; TooLarge is raised before the body is read.
        """
        condition = {"IfMatch": if_match} if if_match else {}
        blob = self._call("GetObject", key, lambda: self._get(key, max_bytes, **condition))
        assert blob is not None
        return blob

    def read_start(self, key: str, max_bytes: int) -> bytes:
        """Return the first `max_bytes` bytes of an object, or all of it if it is smaller. Raises NotFound."""

        def get_range() -> bytes:
            response = self.client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes=0-{max_bytes - 1}")
            with contextlib.closing(response["Body"]) as body:
                data: bytes = body.read(max_bytes)
                return data

        return self._call("GetObject", key, get_range)

    def read_if_new(self, key: str, etag: str | None, max_bytes: int = MAX_DOCUMENT_BYTES) -> Blob | None:
        """Return an object, or None if it still has this ETag. Raises NotFound, TooLarge."""
        condition = {"IfNoneMatch": etag} if etag else {}
        return self._call("GetObject", key, lambda: self._get(key, max_bytes, **condition))

    def etag(self, key: str) -> str:
        """Return the ETag of an object. Raises NotFound."""
        etag: str = self._head(key)["ETag"]
        return etag

    def exists(self, key: str) -> bool:
        try:
            self.etag(key)
        except NotFound:
            return False
        return True

    def create(self, key: str, data: bytes) -> str:
        """Write a new object and return its ETag. Raises AlreadyExists."""
        return self._put(key, data, AlreadyExists, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, if_match: str) -> str:
        """Overwrite the object that has this ETag and return the new ETag. Raises PreconditionFailed."""
        return self._put(key, data, PreconditionFailed, IfMatch=if_match)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object under a prefix in key order. Raises StoreError."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        try:
            for page in pages:
                for entry in page.get("Contents", []):
                    yield ObjectInfo(entry["Key"], entry["ETag"], entry["Size"], entry["LastModified"])
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise StoreError(f"listing {self.url(prefix)}: {error}") from error

    def names(self, prefix: str, suffix: str) -> list[str]:
        """Return the keys under a prefix without the prefix and the suffix, in order. Raises StoreError."""
        return [info.key.removeprefix(prefix).removesuffix(suffix) for info in self.list_objects(prefix)]

    def folders(self, prefix: str) -> list[str]:
        """Return the names up to the next `/` of the keys under a prefix, without listing them all. Raises StoreError."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        try:
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise StoreError(f"listing {self.url(prefix)}: {error}") from error
        return [name.removeprefix(prefix).removesuffix("/") for name in found]

    def delete(self, key: str) -> None:
        """Delete an object if it exists. Only garbage collection calls this."""
        self._call("DeleteObject", key, lambda: self.client.delete_object(Bucket=self.bucket, Key=key))

    def _get(self, key: str, max_bytes: int | None, **condition: str) -> Blob | None:
        try:
            response = self.client.get_object(Bucket=self.bucket, Key=key, **condition)
        except ClientError as error:
            if _error_code(error) in ("304", "NotModified"):
                return None
            raise
        with contextlib.closing(response["Body"]) as body:
            if max_bytes is not None and response["ContentLength"] > max_bytes:
                raise TooLarge(f"{self.url(key)} has {response['ContentLength']} bytes; at most {max_bytes} are accepted")
            return Blob(body.read(), response["ETag"])

    def _head(self, key: str) -> Any:
        return self._call("HeadObject", key, lambda: self.client.head_object(Bucket=self.bucket, Key=key))

    def _put(self, key: str, data: bytes, conflict: type[StoreError], **condition: str) -> str:
        """Write conditionally. The write ID distinguishes a conflict from a retry of a write whose reply was lost."""
        write_id = uuid4().hex

        def put() -> str:
            response = self.client.put_object(
                Bucket=self.bucket, Key=key, Body=data, Metadata={WRITE_ID: write_id}, **condition
            )
            etag: str = response["ETag"]
            return etag

        try:
            return self._call("PutObject", key, put)
        except (PreconditionFailed, NotFound) as error:
            etag = self._etag_of_write(key, write_id)
            if etag:
                return etag
            raise conflict(f"{self.url(key)} was written by another process") from error

    def _etag_of_write(self, key: str, write_id: str) -> str | None:
        try:
            head = self._head(key)
        except NotFound:
            return None
        return head["ETag"] if head["Metadata"].get(WRITE_ID) == write_id else None

    def _call(self, operation: str, key: str, call: Callable[[], T]) -> T:
        """Call S3 and translate errors; retry while another conditional write is in progress (409)."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return call()
            except ClientError as error:
                code = _error_code(error)
                if code in ("404", "NoSuchKey", "NotFound"):
                    raise NotFound(f"there is no {self.url(key)}") from error
                if code in ("412", "PreconditionFailed"):
                    raise PreconditionFailed(f"{self.url(key)} has changed") from error
                if code not in ("409", "ConditionalRequestConflict") or attempt == MAX_ATTEMPTS - 1:
                    raise StoreError(f"{operation} {self.url(key)}: {error}") from error
                time.sleep(random.uniform(0, 0.1 * 2**attempt))
            except (BotoCoreError, ResponseParserError) as error:
                raise StoreError(f"{operation} {self.url(key)}: {error}") from error
        raise AssertionError("unreachable")


def _error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
