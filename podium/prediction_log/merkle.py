"""Merkle trees as in RFC 6962, and their storage as tiles of 256 hashes (C2SP tlog-tiles)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

WIDTH = 256
"""Hashes of a tile."""
EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these hashes."""
    level, rest = list(hashes), list[bytes]()
    if not level:
        return EMPTY
    while level:
        if len(level) % 2:
            rest.append(level.pop())
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return _joined(rest)


def _joined(trees: Sequence[bytes]) -> bytes:
    """Return the root over complete trees of growing size, the last leaves first."""
    root = trees[0]
    for left in trees[1:]:
        root = node_hash(left, root)
    return root


ReadHashes = Callable[[int, int, int], Sequence[bytes]]
"""Returns `count` hashes from `start` on of a level of tiles; each is the root of 256 ** level leaves."""


def inclusion_proof(read: ReadHashes, index: int, size: int) -> list[bytes]:
    """Return the hashes with which the leaf at `index` gives the root of a tree of `size` leaves, from the leaf up."""
    first, end, proof = 0, size, list[bytes]()
    while end - first > 1:
        half = first + (1 << ((end - first - 1).bit_length() - 1))
        if index < half:
            proof.append(range_root(read, half, end))
            end = half
        else:
            proof.append(range_root(read, first, half))
            first = half
    return proof[::-1]


def range_root(read: ReadHashes, first: int, end: int) -> bytes:
    """Return the root over the leaves from `first` to `end`, the first of which is where a tree of that size starts."""
    trees = list[bytes]()
    for size in _powers(end - first):
        level = (size.bit_length() - 1) // 8
        trees.append(root_of(read(level, first >> 8 * level, size >> 8 * level)))
        first += size
    return _joined(trees[::-1]) if trees else EMPTY


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Return the root that a proof of inclusion leads to; None if it has the wrong length (RFC 9162, 2.1.3.2)."""
    number, last, root = index, size - 1, leaf
    for sibling in proof:
        if not last:
            return None
        if number % 2 or number == last:
            root = node_hash(sibling, root)
            while not number % 2 and number:
                number, last = number >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        number, last = number >> 1, last >> 1
    return None if last else root


class Edge:
    """The right edge of a tree: the hashes of the last, incomplete tile of each level."""

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        self.size, self.levels = size, [list(level) for level in levels]

    def add(self, leaves: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
        """Add leaves. Returns (level, number, hashes) of each tile that has changed; those with WIDTH hashes are complete."""
        changed: list[tuple[int, int, bytes]] = []
        self.size += len(leaves)
        level, new, count = 0, list(leaves), self.size
        while new:
            if level == len(self.levels):
                self.levels.append([])
            hashes, number = self.levels[level] + new, (count - len(new)) // WIDTH
            full = [hashes[start : start + WIDTH] for start in range(0, len(hashes) - WIDTH + 1, WIDTH)]
            changed += [(level, number + index, b"".join(tile)) for index, tile in enumerate(full)]
            self.levels[level] = hashes[len(full) * WIDTH :]
            if self.levels[level]:
                changed.append((level, number + len(full), b"".join(self.levels[level])))
            level, new, count = level + 1, [root_of(tile) for tile in full], count // WIDTH
        return changed

    @property
    def root(self) -> bytes:
        """The root of the whole tree."""
        trees = list[bytes]()
        for level in self.levels:
            start, sizes = len(level), list(_powers(len(level)))
            for size in reversed(sizes):
                trees.append(root_of(level[start - size : start]))
                start -= size
        return _joined(trees) if trees else EMPTY


def _powers(number: int) -> Iterator[int]:
    """Yield the powers of two that add up to a number, the largest first."""
    for bit in range(number.bit_length() - 1, -1, -1):
        if number >> bit & 1:
            yield 1 << bit
