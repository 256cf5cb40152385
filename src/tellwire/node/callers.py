"""Who asks: a connection's client, or that of one request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from typing import cast

from tellwire.auth import Identity
from tellwire.hooks import Client
from tellwire.limits import Bucket, Visit
from tellwire.subscriber import Subscriber

CLIENT_BYTES = 9
"""Of a digest, as a client's name: 12 characters, no two alike among all who are ever here together."""


def client_name(user: str | None, session: str) -> str:
    """Return the public name of a client: the same wherever it comes with its session, and no hint of that."""
    digest = hashlib.sha256(f"{user or ''}\0{session}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:CLIENT_BYTES]).decode()


class Caller:
    """Who is behind a connection or a request.

    ``identity`` is None while it has not said who it is. ``session`` is the secret text that the client chose, or that
    a connection without one was given; a request may have none. ``number`` names one connection among all of all nodes,
    where the application wants to know its end. ``known`` is when it was found out who it is, by the monotonic clock.
    """

    __slots__ = (
        "_client", "address", "commands", "counted", "heartbeat_s", "identity", "known", "number", "publishes",
        "session", "since", "timer", "transport", "visit",
    )  # fmt: skip

    def __init__(self, identity: Identity | None, transport: str, address: str, session: str | None = None) -> None:
        self.identity = identity
        self.known = time.monotonic()
        self.transport = transport
        self.address = address
        self.session = session
        self._client: str | None = None
        self.commands: Bucket | None = None
        self.publishes: Bucket | None = None
        self.timer: asyncio.TimerHandle | None = None  # ends the connection when its token does, or its patience
        self.counted: str | None = None  # the user for whom the connection is counted
        self.number: str | None = None
        self.visit: Visit | None = None  # its place among those that have not said who they are
        self.since = 0.0
        self.heartbeat_s: float | None = None  # between the signs of life of a wire that has its own

    @property
    def client(self) -> str:
        if self._client is None:
            self._client = client_name(self.user, self.session or "")
        return self._client

    @property
    def user(self) -> str | None:
        return self.identity.user if self.identity is not None else None

    @property
    def key(self) -> str:
        """What requests of the same origin are counted under."""
        return f"u:{self.user}" if self.user is not None else f"a:{self.address}"

    def become(self, identity: Identity | None, session: str | None = None) -> None:
        """Be somebody from now on."""
        if identity is not self.identity:
            self.identity = identity
            self.known = time.monotonic()
        self.session = session or self.session
        self._client = None

    def stop_timer(self) -> None:
        """Let the connection go on, as far as time is concerned."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def view(self) -> Client:
        """Return what an application's handlers see of it."""
        assert self.identity is not None
        return Client(self.client, self.identity, self.transport)


def caller_of(subscriber: Subscriber) -> Caller:
    """Return who is behind a connection that a node admitted."""
    return cast(Caller, subscriber.caller)
