"""Signed hints in the Standard Webhooks form (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from service.problems import InvalidSignature

TOLERANCE_SECONDS = 300
REMEMBERED = 10_000
SHORTEST_KEY = 16


class Webhooks:
    """Checks signatures against several keys and remembers the ids that came."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        if any(len(key) < SHORTEST_KEY for key in self._keys):
            raise ValueError(f"a key of PODIUM_REFRESH_SECRETS is shorter than {SHORTEST_KEY} bytes")
        self._seen: OrderedDict[str, None] = OrderedDict()

    def accept(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        """Whether this hint is new; raises BadSignature."""
        identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not identity or not stamp.isascii() or not stamp.isdigit() or abs(int(stamp[:15]) - now) > TOLERANCE_SECONDS:
            raise InvalidSignature("webhook-id or webhook-timestamp is missing or too old")
        content = b".".join([identity.encode("latin-1"), stamp.encode(), body])
        given = [_decoded(part[3:]) for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
        right = [hmac.new(key, content, hashlib.sha256).digest() for key in self._keys]
        if not any(hmac.compare_digest(one, other) for one in given for other in right):
            raise InvalidSignature("webhook-signature fits none of the configured keys")
        if identity in self._seen:
            return False
        self._seen[identity] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
