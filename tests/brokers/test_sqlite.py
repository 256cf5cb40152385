from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tellwire.brokers.base import Broker
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.names import Namespaces
from tellwire.testing.contract import DurableBrokerContract
from tellwire.testing.harness import MakeBroker
from tellwire.testing.model import BrokerModelContract


class TestSqliteBroker(DurableBrokerContract, BrokerModelContract):
    """The contract, over a file."""

    durable = True

    @pytest.fixture
    def make_broker(self, tmp_path: Path) -> MakeBroker:
        def make(
            namespaces: Namespaces | None = None,
            *,
            dedupe_window_s: float = 300.0,
            clock: Callable[[], int] | None = None,
            store: str = "main",
        ) -> Broker:
            path = tmp_path / f"{store}.db"
            if clock is None:
                return SqliteBroker(path, namespaces, dedupe_window_s=dedupe_window_s)
            return SqliteBroker(path, namespaces, dedupe_window_s=dedupe_window_s, clock=clock)

        return make
