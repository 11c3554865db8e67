from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick tests of the registry run on SeaweedFS only, all of them on moto too."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "moto" in item.name:
            item.add_marker(pytest.mark.slow)
