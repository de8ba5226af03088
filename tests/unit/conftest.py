"""What the tests of clients and commands share."""

from collections.abc import Iterator

import pytest

from fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running fake server."""
    with FakeServer() as running:
        yield running
