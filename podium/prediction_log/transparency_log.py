"""A transparency log in the bucket: an append-only Merkle tree of entries, as static files (C2SP tlog-tiles).

`log/checkpoint` is a signed note with the size and the root of the tree. The hashes are in `log/tile/<level>/…`, the entries
in `log/tile/entries/…`. Writers agree through `log/pending`, which holds the next entries with their checkpoint: it is
replaced by compare-and-set, and every writer first completes what is pending.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature

from podium.prediction_log.merkle import WIDTH, Edge, inclusion_proof, leaf_hash, root_from_proof, root_of
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import AlreadyExists, NotFound, PreconditionFailed, Store, StoreError

PREFIX = "log/"
CHECKPOINT, PENDING = f"{PREFIX}checkpoint", f"{PREFIX}pending"
ED25519, HASH_BYTES = b"\x01", 32
MAX_ATTEMPTS = 50
RECENT = 4096
"""Entries that are read to find out what was logged last."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and the root of a log, as a signed note."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def signed(self, signer: Signer) -> bytes:
        """Return the note."""
        signature = key_hash(self.origin, signer.public) + signer.sign_bytes(self.text.encode())
        return f"{self.text}\n\u2014 {self.origin} {base64.b64encode(signature).decode()}\n".encode()

    @classmethod
    def verified(cls, note: bytes, origin: str, keys: VerifyingKeys) -> Self:
        """Return the checkpoint of a note that an accepted key has signed. Raises IntegrityError."""
        with contextlib.suppress(ValueError, KeyError, InvalidSignature):
            text, _, signatures = note.decode().rpartition("\n\n")
            head = cls._parse(f"{text}\n")
            for line in signatures.splitlines():
                _, name, signature = line.split(" ")
                data = base64.b64decode(signature, validate=True)
                for public in keys.public:
                    if head.origin == name and data[:4] == key_hash(name, public):
                        keys.verify_bytes(public, data[4:], head.text.encode())
                        return head._named(origin)
        raise IntegrityError("the checkpoint of the log is not signed by an accepted key: check PODIUM_LOG_KEYS")

    def _named(self, origin: str) -> Self:
        """Return this checkpoint. Raises IntegrityError if it is of another log."""
        if self.origin != origin:
            raise IntegrityError(
                f"the checkpoint is of the log {self.origin}, not {origin}; if this bucket was restored from there, set "
                f"PODIUM_LOG_NAME={self.origin}"
            )
        return self

    @classmethod
    def _parse(cls, text: str) -> Self:
        origin, size, root, end = text.split("\n")
        checkpoint = cls(origin, int(size), base64.b64decode(root, validate=True))
        if end or checkpoint.text != text or checkpoint.size < 0:
            raise ValueError("not a checkpoint")
        return checkpoint


def key_hash(origin: str, public: str) -> bytes:
    """Return the four bytes that name a key in a signed note."""
    return hashlib.sha256(origin.encode() + b"\n" + ED25519 + base64.b64decode(public)).digest()[:4]


def verifier_key(origin: str, public: str) -> str:
    """Return the public key in the form that verifiers of signed notes take."""
    encoded = base64.b64encode(ED25519 + base64.b64decode(public)).decode()
    return f"{origin}+{key_hash(origin, public).hex()}+{encoded}"


def tile_key(level: int | str, number: int, width: int) -> str:
    """Return the key of a tile of hashes or of entries, which is partial unless it has WIDTH of them."""
    digits = f"{number:0{-(-len(str(number)) // 3) * 3}d}"
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"{PREFIX}tile/{level}/{path}{'' if width == WIDTH else f'.p/{width}'}"


def pack_entries(entries: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unpack_entries(data: bytes) -> list[bytes]:
    """Raises IntegrityError."""
    entries, start = list[bytes](), 0
    while start < len(data):
        end = start + 2 + int.from_bytes(data[start : start + 2])
        if end > len(data):
            raise IntegrityError("a file of the log's entries is incomplete")
        entries.append(data[start + 2 : end])
        start = end
    return entries


class TransparencyLog:
    """The log of a bucket, whose checkpoints name its `origin`. Readers need the public keys only."""

    def __init__(self, store: Store, keys: VerifyingKeys, origin: str = "") -> None:
        self._store, self._keys = store, keys
        self.origin = origin or f"podium/{store.bucket}"
        self.public_keys = keys.public
        self._tile = functools.lru_cache(1024)(self._read_tile)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return the signed checkpoint; of size 0 if there is none. Raises IntegrityError."""
        return self.read_checkpoint()[0]

    def read_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Return the signed checkpoint and its note, which is empty if there is none. Raises IntegrityError."""
        try:
            note = self._store.read(CHECKPOINT).data
        except NotFound:
            return Checkpoint(self.origin, 0, Edge().root), b""
        return self.parse_checkpoint(note), note

    def parse_checkpoint(self, note: bytes) -> Checkpoint:
        """Return the checkpoint of a note of this log. Raises IntegrityError."""
        return Checkpoint.verified(note, self.origin, self._keys)

    def check_continues(self, earlier: Checkpoint, checkpoint: Checkpoint) -> None:
        """Check that the log of a checkpoint starts with the entries of an earlier one. Raises IntegrityError."""
        if any(each.size > checkpoint.size or self._edge(each.size).root != each.root for each in (earlier, checkpoint)):
            raise IntegrityError(f"the log does not continue the one of {earlier.size} entries that was seen before")

    def recent_entries(self, checkpoint: Checkpoint) -> Iterator[bytes]:
        """Yield the last entries, unverified."""
        return self.entries(checkpoint.size, max(0, checkpoint.size - RECENT))

    def entries(self, size: int, first: int = 0) -> Iterator[bytes]:
        """Yield the entries of a log of this size, unverified. Raises IntegrityError if a file is missing."""
        for number in range(first // WIDTH, -(-size // WIDTH)):
            bundle = unpack_entries(self._existing("entries", number, size))
            if len(bundle) < min(WIDTH, size - number * WIDTH):
                raise IntegrityError(f"{self._store.url(tile_key('entries', number, WIDTH))} lacks entries")
            yield from bundle[max(0, first - number * WIDTH) : size - number * WIDTH]

    def _existing(self, level: int | str, number: int, count: int) -> bytes:
        """Return a tile of a level with `count` hashes: the complete one if there is one, else the partial one of this size."""
        width = min(WIDTH, count - number * WIDTH)
        for key in dict.fromkeys((tile_key(level, number, width), tile_key(level, number, WIDTH))):
            with contextlib.suppress(NotFound):
                return self._store.read(key).data
        raise IntegrityError(f"{self._store.url(tile_key(level, number, width))} is missing")

    def _read_tile(self, level: int, number: int, size: int) -> list[bytes]:
        data = self._existing(level, number, size >> 8 * level)
        return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]

    def _hashes(self, size: int, level: int, start: int, count: int) -> list[bytes]:
        """Return hashes of a level, all of which are in one tile or fill several."""
        found = list[bytes]()
        for number in range(start // WIDTH, -(-(start + count) // WIDTH)):
            found += self._tile(level, number, size)
        offset = start % WIDTH
        return found[offset : offset + count]

    def proof(self, index: int, checkpoint: Checkpoint) -> list[bytes]:
        """Return the proof that the entry at `index` is in the log. Raises IntegrityError."""
        return inclusion_proof(functools.partial(self._hashes, checkpoint.size), index, checkpoint.size)

    def check_inclusion(self, entry: bytes, index: int, checkpoint: Checkpoint) -> list[bytes]:
        """Return the proof that this entry is in the log. Raises IntegrityError if it is not."""
        proof = self.proof(index, checkpoint)
        if root_from_proof(leaf_hash(entry), index, checkpoint.size, proof) != checkpoint.root:
            raise IntegrityError(f"entry {index} is not in the signed log")
        return proof

    def check_all(self) -> tuple[Checkpoint, list[bytes]]:
        """Return the checkpoint and every entry, after computing the root from them. Raises IntegrityError."""
        checkpoint = self.checkpoint()
        entries = list(self.entries(checkpoint.size))
        if root_of([leaf_hash(entry) for entry in entries]) != checkpoint.root:
            raise IntegrityError("the entries of the log do not have the root of its checkpoint")
        return checkpoint, entries

    # --- writing -----------------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[bytes], signer: Signer) -> Checkpoint:
        """Append the entries and return the new checkpoint. Raises StoreError."""
        for _ in range(MAX_ATTEMPTS):
            etag, edge = self._complete_pending()
            first = edge.size
            edge.add([leaf_hash(entry) for entry in entries])
            checkpoint = Checkpoint(self.origin, edge.size, edge.root)
            content = {
                "first": first,
                "entries": [base64.b64encode(entry).decode() for entry in entries],
                "checkpoint": checkpoint.signed(signer).decode(),
            }
            try:
                self._write_pending(json.dumps(content).encode(), etag)
            except (AlreadyExists, PreconditionFailed):
                continue  # another writer was faster
            self._complete_pending()
            return checkpoint
        raise StoreError("too many writers append to the log; try again")

    def _write_pending(self, data: bytes, etag: str | None) -> None:
        if etag:
            self._store.replace(PENDING, data, etag)
        else:
            self._store.create(PENDING, data)

    def _complete_pending(self) -> tuple[str | None, Edge]:
        """Write the files of the pending entries. Returns the ETag of the pending ones and the edge of the tree."""
        try:
            blob = self._store.read(PENDING)
        except NotFound:
            return None, Edge()
        content: dict[str, Any] = json.loads(blob.data)
        target = Checkpoint.verified(content["checkpoint"].encode(), self.origin, self._keys)
        current = self._read_checkpoint()
        if current and current[1] >= target.size:
            return blob.etag, self._edge(target.size)
        entries = [base64.b64decode(entry) for entry in content["entries"]]
        edge = self._edge(content["first"])
        tiles = edge.add([leaf_hash(entry) for entry in entries])
        if (edge.size, edge.root) != (target.size, target.root):
            raise IntegrityError("the files of the log do not fit the entries to append: run `podium verify --log`")
        self._write_bundles(entries, content["first"])
        for level, number, hashes in tiles:
            self._create(tile_key(level, number, len(hashes) // HASH_BYTES), hashes)
        note = content["checkpoint"].encode()
        with contextlib.suppress(AlreadyExists, PreconditionFailed):  # another writer completed it
            if current:
                self._store.replace(CHECKPOINT, note, current[0])
            else:
                self._store.create(CHECKPOINT, note)
        return blob.etag, edge

    def _read_checkpoint(self) -> tuple[str, int] | None:
        """Return the ETag of the checkpoint and its size."""
        try:
            blob = self._store.read(CHECKPOINT)
        except NotFound:
            return None
        return blob.etag, Checkpoint.verified(blob.data, self.origin, self._keys).size

    def _edge(self, size: int) -> Edge:
        """Return the right edge of the tree of this size, from its tiles."""
        levels, level = list[list[bytes]](), 0
        while size >> 8 * level:
            count = size >> 8 * level
            partial = count % WIDTH
            levels.append(self._tile(level, count // WIDTH, size)[:partial] if partial else [])
            level += 1
        return Edge(size, levels)

    def _write_bundles(self, entries: Sequence[bytes], first: int) -> None:
        start = first - first % WIDTH
        bundle = [*self.entries(first, start), *entries]
        for offset in range(0, len(bundle), WIDTH):
            part = bundle[offset : offset + WIDTH]
            self._create(tile_key("entries", (start + offset) // WIDTH, len(part)), pack_entries(part))

    def _create(self, key: str, data: bytes) -> None:
        with contextlib.suppress(AlreadyExists):  # by a writer that did not finish; the content is the same
            self._store.create(key, data)
