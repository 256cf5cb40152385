"""Fixtures that every test may use, and how property tests run."""

import pytest
from hypothesis import HealthCheck, settings

from tellwire.client.connection import forget

pytest_plugins = ["tests.serving", "tests.guarded"]

# Here, as it holds for what is imported later. No test asserts a time, so no example has a deadline; and `make test`
# tries the same each time, so that what fails is what a change broke. `make soak` looks for more.
_untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", _untimed)
settings.register_profile("steady", _untimed, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def unknown_servers() -> None:
    """Let clients begin with the best of their transports: at a port that comes again there may be another proxy."""
    forget()
