"""Fixtures that every test may use."""

import pytest

from tellwire.client.connection import forget

pytest_plugins = ["tests.serving", "tests.guarded"]


@pytest.fixture(autouse=True)
def unknown_servers() -> None:
    """Let clients begin with the best of their transports: at a port that comes again there may be another proxy."""
    forget()
