"""One connection to a NATS server, and the requests that JetStream answers on it.

Connecting anew is not left to nats-py: it would send what was being written again, of which nobody knows by then
whether it still may be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from tellwire.brokers.nats_url import NatsPlace
from tellwire.errors import Unavailable

_CANCEL_AGAIN_S = 0.1
"""Seconds after which a task that has not ended is cancelled once more."""

_PENDING_BYTES = 64 * 1024 * 1024
"""Bytes that nats-py may hold for the socket."""


_CHANGE_S = 5.0
"""Seconds after which a request counts as lost: to a leader that is no more, nobody else answers it."""


_STARTING = frozenset({10005, 10008})
"""Codes with which a cluster refuses what its servers have not yet found each other for, though it has a leader."""


_CUT = ("Broken pipe", "reset by peer", "EOF", "closed")
"""What errors say of a connection that the other end has closed."""


class Refused(Exception):
    """JetStream answered with an error.

    Codes are JetStream's own (``err_code``); ``server/errors.json`` of nats-server has them all.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class NotYet(Unavailable):
    """Nobody answered in time, so that nobody knows what was done; or JetStream is not so far."""


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Failed(msgspec.Struct):
    error: _ApiError | None = None


_failed = msgspec.json.Decoder(_Failed)


async def dial(place: NatsPlace, on_lost: Callable[[Client, str], None]) -> Client:
    """Connect to any of a place's servers, within its timeout; raises NotYet, Unavailable that say what is wrong.

    `on_lost` is called when the connection was lost, with the reason.
    """
    kind: type[Unavailable] = NotYet
    why = "it did not answer in time"
    hosts = list(place.hosts)
    random.shuffle(hosts)
    try:
        async with asyncio.timeout(place.timeout_s):
            for host, port in hosts:
                try:
                    return await _connect(place, host, port, on_lost)
                except (NatsError, OSError, ValueError, TimeoutError) as exc:
                    why = str(exc) or "it did not answer in time"
                    kind = NotYet if isinstance(exc, TimeoutError) else Unavailable
                    if any(sign in why for sign in _CUT):
                        # It says why, but that is lost where it closes before it has read everything.
                        why += "; it closes connections whose user, password or token are wrong"
    except TimeoutError:
        kind = NotYet
    raise kind(f"{place} cannot be reached: {why}")


async def _connect(place: NatsPlace, host: str, port: int, on_lost: Callable[[Client, str], None]) -> Client:
    client = Client()
    causes: list[str] = []

    async def failed(exc: Exception) -> None:
        causes.append(str(exc) or type(exc).__name__)

    async def closed() -> None:
        on_lost(client, str(client.last_error or "the connection was closed"))

    share = max(place.timeout_s / len(place.hosts), 0.05)
    try:
        async with asyncio.timeout(share):
            await client.connect(
                servers=[f"{'tls' if place.tls else 'nats'}://{_bracketed(host)}:{port}"],
                error_cb=failed,
                closed_cb=closed,
                name="tellwire",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=share,  # type: ignore[arg-type]  # it takes fractions
                ping_interval=max(place.timeout_s / 2, 0.1),  # type: ignore[arg-type]
                max_outstanding_pings=2,
                tls=place.tls_context(),
                tls_hostname=host if place.tls else None,
                user=place.username,
                password=place.password,
                token=place.token,
                user_credentials=place.creds,
                nkeys_seed_str=place.nkey_seed(),
                pending_size=_PENDING_BYTES,
            )
    except (ImportError, ModuleNotFoundError) as exc:
        raise ValueError(f"credentials need the library nkeys: pip install 'tellwire[nats]' ({exc})") from exc
    except BaseException as exc:
        with suppress(Exception):
            async with asyncio.timeout(1):
                await client.close()
        if causes and isinstance(exc, NatsError | OSError):
            raise NatsError(causes[-1]) from exc
        raise
    return client


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended.

    A cancellation may get lost: nats-py takes one for nothing that meets it while it flushes, and so does
    `asyncio.wait_for`, by which it connects, before Python 3.12, when what it waits for comes in the same moment.
    """
    going = {task for task in tasks if not task.done()}
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=_CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def hang_up(client: Client) -> None:
    """Close a connection, also one whose other end does not read any more."""
    with suppress(Exception):
        async with asyncio.timeout(1):
            await client.close()


async def ask(client: Client, place: NatsPlace, subject: str, *, wait_s: float = _CHANGE_S, **request: Any) -> bytes:
    """Ask JetStream something; raises Refused, NotYet, Unavailable.

    Without an answer in `wait_s` seconds, or in the place's timeout, the request counts as lost.
    """
    payload = msgspec.json.encode(request) if request else b""
    try:
        answer = await client.request(f"$JS.API.{subject}", payload, timeout=min(place.timeout_s, wait_s))
    except NoRespondersError:
        raise Unavailable(
            f"{place} has no JetStream that answers; start nats-server with -js, or enable it for this account"
        ) from None
    except (NatsError, TimeoutError, OSError) as exc:
        raise NotYet(f"{place}: JetStream does not answer ({str(exc) or 'no answer in time'})") from exc
    error = _failed.decode(answer.data).error
    if error is not None and error.err_code in _STARTING:
        raise NotYet(f"{place} cannot be used: {error.description}")
    if error is not None:
        raise Refused(error.code, error.err_code, error.description)
    return answer.data


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
