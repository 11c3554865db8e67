from __future__ import annotations

import random

import pytest

from podium.prediction_log.merkle import EMPTY, WIDTH, Edge, inclusion_proof, leaf_hash, node_hash, root_from_proof, root_of


def reference(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(reference(leaves[:half]), reference(leaves[half:]))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 255, 256, 257, 1000])
def test_the_root_is_that_of_the_standard_however_leaves_are_added(size: int) -> None:
    leaves = [str(number).encode() for number in range(size)]
    hashes, generator = list(map(leaf_hash, leaves)), random.Random(size)
    assert root_of(hashes) == reference(leaves)
    edge, start = Edge(), 0
    while start < size:
        end = start + generator.randint(1, 300)
        edge.add(hashes[start:end])
        start = end
    assert (edge.size, edge.root) == (size, reference(leaves))


@pytest.mark.parametrize("size", [1, 2, 5, 256, 257, 70_000])
def test_proofs_hold_for_their_leaf_only(size: int) -> None:
    hashes = [leaf_hash(str(number).encode()) for number in range(size)]
    tiles = {0: hashes}
    while len(tiles[len(tiles) - 1]) >= WIDTH:
        below = tiles[len(tiles) - 1]
        tiles[len(tiles)] = [root_of(below[start : start + WIDTH]) for start in range(0, len(below) - WIDTH + 1, WIDTH)]
    root = root_of(hashes)
    for index in {0, size // 3, size // 2, size - 1}:
        proof = inclusion_proof(lambda level, start, count: tiles[level][start : start + count], index, size)
        assert root_from_proof(hashes[index], index, size, proof) == root
        assert 32 * len(proof) <= 1024
        assert root_from_proof(leaf_hash(b"other"), index, size, proof) != root
        if proof:
            assert root_from_proof(hashes[index], index, size, proof[:-1]) != root
            assert root_from_proof(hashes[index], index, size, [*proof, proof[0]]) != root
