"""One server that tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from served_pages import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server on this machine."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with served() as found:
        yield found
