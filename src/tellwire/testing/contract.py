"""The suite that every broker passes.

A broker of one's own is held to it by one fixture::

    from tellwire.testing.contract import BrokerContract
    from tellwire.testing.harness import MakeBroker

    class TestMine(BrokerContract):
        @pytest.fixture
        def make_broker(self, tmp_path) -> MakeBroker:
            def make(namespaces=None, *, dedupe_window_s=300.0, clock=None, store="main"):
                return MyBroker(...)
            return make

The tests need pytest and nothing else: each runs on an event loop of its own. A broker whose log outlives it, and is
found again under the same ``store``, inherits from `DurableBrokerContract` instead.
"""

from __future__ import annotations

import pytest

from tellwire.testing.appends import AppendContract
from tellwire.testing.bounds import BoundsContract
from tellwire.testing.durability import DurabilityContract, LifeContract
from tellwire.testing.harness import MakeBroker
from tellwire.testing.reads import ReadContract


class BrokerContract(AppendContract, ReadContract, BoundsContract, LifeContract):
    """The tests of `tellwire.brokers.base.Broker`; a subclass gives the fixture ``make_broker``."""

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        """Return what makes the brokers under test, not yet opened; to be overridden."""
        pytest.fail(f"{type(self).__name__} has to override the fixture make_broker; see {__name__}")


class DurableBrokerContract(BrokerContract, DurabilityContract):
    """The tests of a broker whose log is still there after it was closed."""
