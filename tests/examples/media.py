"""Browsers with a camera, a microphone and a screen that Chromium makes up, and ways to this machine itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import chromium
from tests.clients.room.conftest import FLAGS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start such a browser."""
    with chromium(*FLAGS) as browser:
        yield browser
