"""Fixtures that every test may use, and how property tests run."""

import pytest
from hypothesis import HealthCheck, settings

from tellwire.client.connection import forget

pytest_plugins = ["tests.serving", "tests.guarded"]

# No test asserts a time, so no example has a deadline; here, as it holds for what is imported later.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def unknown_servers() -> None:
    """Let clients begin with the best of their transports: at a port that comes again there may be another proxy."""
    forget()
