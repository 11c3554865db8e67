"""Result files for download, behind names that cannot be guessed, the oldest making room."""

from __future__ import annotations

import secrets
import tempfile
from collections import OrderedDict
from pathlib import Path

from service.problems import StorageFull, UnknownResult

MOST = 100


class Results:
    """CSV files in a folder that goes with the service."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="podium-results-")
        self._kept: OrderedDict[str, tuple[str, dict[str, str]]] = OrderedDict()

    def put(self, data: bytes, headers: dict[str, str], owner: str = "") -> str:
        """Keep a file with the headers of its answer; returns its name. Raises StorageFull."""
        name = secrets.token_urlsafe(18)
        try:
            self._path(name).write_bytes(data)
        except OSError:
            self._path(name).unlink(missing_ok=True)
            raise StorageFull("the result cannot be kept now") from None
        self._kept[name] = owner, headers
        while len(self._kept) > MOST:
            oldest, _ = self._kept.popitem(last=False)
            self._path(oldest).unlink(missing_ok=True)
        return name

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def get(self, name: str, owner: str = "") -> tuple[Path, dict[str, str]]:
        """Raises UnknownResult, for somebody else's result too."""
        owned_by, headers = self._kept.get(name, (None, {}))
        if owned_by != owner:
            raise UnknownResult("there is no result of that name, or it made room for newer ones")
        return self._path(name), headers

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.csv"

    def close(self) -> None:
        self._folder.cleanup()
