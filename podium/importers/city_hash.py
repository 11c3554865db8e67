"""CatBoost's hash of a category: CityHash64, version 1 (Pike and Alakuijala, 2011), of which 32 bits count."""

from __future__ import annotations

import struct

MASK = 2**64 - 1
K0, K1, K2, K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557


def category_hash(text: str) -> int:
    """Return CatBoost's 32-bit hash of a category."""
    return _city_hash(text.encode()) & 0xFFFFFFFF


def _city_hash(data: bytes) -> int:
    size = len(data)
    if size > 64:
        return _long_hash(data)
    if size > 32:
        return _hash_of_64(data)
    if size > 16:
        a, b = _word(data, 0) * K1, _word(data, 8)
        c, d = _word(data, size - 8) * K2, _word(data, size - 16) * K0
        return _mix(_rotate(a - b, 43) + _rotate(c, 30) + d, a + _rotate(b ^ K3, 20) - c + size)
    if size > 8:
        a, b = _word(data, 0), _word(data, size - 8)
        return _mix(a, _rotate(b + size, size)) ^ b
    if size >= 4:
        first, last = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, size - 4)[0]
        return _mix(size + (first << 3), last)
    if size:
        y, z = data[0] + (data[size >> 1] << 8), size + (data[-1] << 2)
        return _shift_mix((y * K2 ^ z * K3) & MASK) * K2 & MASK
    return K2


def _word(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 8], "little")


def _rotate(value: int, bits: int) -> int:
    value &= MASK
    return (value >> bits | value << (64 - bits)) & MASK


def _shift_mix(value: int) -> int:
    return value ^ value >> 47


def _mix(low: int, high: int) -> int:
    factor, high = 0x9DDFEA08EB382D69, high & MASK
    a = _shift_mix(((low & MASK) ^ high) * factor & MASK)
    return _shift_mix((high ^ a) * factor & MASK) * factor & MASK


def _hash_of_64(data: bytes) -> int:
    """Hash 33 to 64 bytes."""
    size = len(data)
    a = _word(data, 0) + (size + _word(data, size - 16)) * K0
    vf, vs = _fold(a, _word(data, 8), _word(data, 16), _word(data, 24))
    a = _word(data, 16) + _word(data, size - 32)
    wf, ws = _fold(a, _word(data, size - 24), _word(data, size - 16), _word(data, size - 8))
    r = _shift_mix(((vf + ws) * K2 + (wf + vs) * K0) & MASK)
    return _shift_mix((r * K0 + vs) & MASK) * K2 & MASK


def _fold(a: int, x: int, y: int, z: int) -> tuple[int, int]:
    b, c = _rotate(a + z, 52), _rotate(a, 37)
    c += _rotate(a + x, 7)
    a += x + y
    return a + z, b + _rotate(a, 31) + c


def _weak_hash(data: bytes, start: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", data, start)
    a += w
    b = _rotate(b + a + z, 21)
    total = a + x + y
    return (total + z) & MASK, (b + _rotate(total, 44) + a) & MASK


def _long_hash(data: bytes) -> int:
    size = len(data)
    x, y, z = _word(data, 0), _word(data, size - 16) ^ K1, _word(data, size - 56) ^ K0
    v, w = _weak_hash(data, size - 64, size, y), _weak_hash(data, size - 32, size * K1, K0)
    z += _shift_mix(v[1]) * K1
    x, y = _rotate(z + x, 39) * K1, _rotate(y, 33) * K1
    for start in range(0, (size - 1) // 64 * 64, 64):
        x = _rotate(x + y + v[0] + _word(data, start + 16), 37) * K1 ^ w[1]
        y = _rotate(y + v[1] + _word(data, start + 48), 42) * K1 ^ v[0]
        z = _rotate(z ^ w[0], 33)
        v = _weak_hash(data, start, v[1] * K1, x + w[0])
        w = _weak_hash(data, start + 32, z + w[1], y)
        z, x = x & MASK, z
    return _mix(_mix(v[0], w[0]) + _shift_mix(y & MASK) * K1 + z, _mix(v[1], w[1]) + x)
