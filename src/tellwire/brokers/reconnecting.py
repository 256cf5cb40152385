"""How a connection to a log's servers is made again, for as long as that takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from tellwire.errors import Unavailable

_log = logging.getLogger("tellwire")

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 1.0


async def connect_again(connect: Callable[[], Awaitable[None]], place: object, told: Callable[[str], None]) -> None:
    """Connect, with pauses that grow, until it succeeds; `told` is given the reason of each failure."""
    pause = _FIRST_PAUSE_S
    while True:
        try:
            await connect()
        except Unavailable as exc:
            told(str(exc))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LAST_PAUSE_S)
        except Exception:
            _log.exception("%s cannot be used", place)
            await asyncio.sleep(_LAST_PAUSE_S)
        else:
            return
