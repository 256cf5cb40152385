"""What every HTTP endpoint has to do: check who asks, read what is asked, and say no in one way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

import msgspec

from tellwire.auth import Access
from tellwire.errors import (
    BadRequest,
    Conflict,
    Internal,
    Malformed,
    TellwireError,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from tellwire.limits import client_address
from tellwire.message import CURSOR_MAX_BYTES
from tellwire.names import Policy
from tellwire.node import Attendance, Caller, Handshake, Node, check_session
from tellwire.protocol.commands import OnGap
from tellwire.protocol.session import retry_after_ms

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

PARAMETERS_MAX = 4096
"""Parameters in one query; channels are what there can be many of."""


MSGPACK_TYPES = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")
JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain", "")
"""Besides its own type, what curl and simple clients say of the JSON that they send. Pages of other origins, which may
send these without asking first, are refused by their Origin."""


class Gone(Exception):
    """The client went away before its request was read."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header field, given in lower case; None where the request has none."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value).decode("latin-1")
    return None


def check_access(scope: Scope, access: Access) -> RawHeaders:
    """Refuse pages that may not use this server; return the CORS fields for those that may."""
    origin = access.check(scope["headers"], scope["scheme"])
    return cors_fields(origin, credentials=origin is None or access.trusts(scope["headers"], scope["scheme"]))


def handshake(node: Node, scope: Scope, transport: str, *, with_cookies: bool = True) -> Handshake:
    """Return what a request says of whoever sent it."""
    headers = scope["headers"]
    client = scope.get("client")
    address = client_address(client[0], headers, node.trusted_proxies) if client else ""
    if not with_cookies or not node.access.trusts(headers, scope["scheme"]):
        headers = [(name, value) for name, value in headers if name != b"cookie"]
    subprotocols = scope.get("subprotocols", ())
    return Handshake(headers, scope.get("query_string", b""), scope["path"], address, transport, subprotocols)


def cors_fields(origin: str | None, *, credentials: bool = True) -> RawHeaders:
    """Make the fields that let a page of `origin` read the answer (Fetch standard, section 3.3)."""
    if origin is None:
        return [(b"vary", b"Origin")]
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        *([(b"access-control-allow-credentials", b"true")] if credentials else []),
        (b"access-control-expose-headers", b"Retry-After, Location, Link"),
        (b"vary", b"Origin"),
    ]


class Query:
    """The parameters of a reading request (spec, section 8); unknown ones are ignored."""

    def __init__(self, scope: Scope) -> None:
        try:
            pairs = parse_qsl(
                scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=PARAMETERS_MAX,
            )
        except ValueError as exc:
            raise BadRequest(f"the query cannot be read: {exc}") from None
        self.channels = list(dict.fromkeys(value for name, value in pairs if name == "channel"))
        self._values = dict(reversed(pairs))

    def need_channels(self, own: Sequence[str] = ()) -> Sequence[str]:
        """Return the channels, where none is named the caller's `own`; raise BadRequest where there are none either."""
        channels = self.channels or own
        if not channels:
            raise BadRequest("no channel is named; give ?channel=NAME, as often as there are channels")
        return channels

    def text(self, name: str) -> str | None:
        """Return a parameter's text; None where it is missing or empty."""
        return self._values.get(name) or None

    def start(self, scope: Scope) -> tuple[str | None, int | None]:
        """Return where to begin, as ``since`` and ``last``; at most one of them may be given.

        An EventSource that reconnects asks with the same address again, so what it says in ``Last-Event-ID`` comes
        before both.
        """
        last_event_id = header(scope, b"last-event-id")
        since = last_event_id or self.text("since")
        if since is not None and len(since) > CURSOR_MAX_BYTES:
            raise BadRequest(f"a cursor has at most {CURSOR_MAX_BYTES} bytes; this one has {len(since)}")
        return since, None if last_event_id else self.integer("last")

    def integer(self, name: str) -> int | None:
        """Return a whole number; raise BadRequest where it is none."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20):
            raise BadRequest(f"{name}={value[:40]!a} is not a whole number")
        return int(value)

    def seconds(self, name: str) -> float:
        """Return a number of seconds, 0 where it is missing; raise BadRequest where it is none."""
        value = self.text(name)
        try:
            number = float(value or 0)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e9:
            raise BadRequest(f"{name}={str(value)[:40]!a} is not a number of seconds")
        return number

    def flag(self, name: str) -> bool:
        """Return whether a switch is on: 1 or true."""
        value = self.text(name)
        if value not in (None, "0", "1", "true", "false"):
            raise BadRequest(f"{name}={str(value)[:40]!a} is neither 0 nor 1")
        return value in ("1", "true")

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return one of some words, None where it is missing; raise BadRequest for any other."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise BadRequest(f"{name}={value[:40]!a} is none of {', '.join(choices)}")
        return value

    @property
    def session(self) -> str | None:
        return check_session(self.text("session"))

    @property
    def attendance(self) -> Attendance | None:
        """What the request wants of presence; a member needs a session to be known by."""
        wanted = cast(Attendance | None, self.choice("presence", ("enter", "watch")))
        if wanted == "enter" and self.session is None:
            raise BadRequest("presence=enter needs a session: a secret text by which the client is known again")
        return wanted

    @property
    def policy(self) -> Policy | None:
        return cast(Policy | None, self.choice("policy", ("catch_up", "latest", "disconnect")))

    @property
    def on_gap(self) -> OnGap:
        return cast(OnGap, self.choice("on_gap", ("oldest", "newest")) or "oldest")


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Read a request's body; raises TooLarge, and Gone where the client went away."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(f"a request has at most {limit_bytes} bytes; this one has more")
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def content_type(scope: Scope) -> str:
    """Return what a request says that its body is, without parameters; empty where it says nothing."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


async def read_whole(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """Read a request's body, unless it says already that it is too large; raises TooLarge, Gone."""
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit_bytes:
        raise TooLarge(f"a request has at most {limit_bytes} bytes; this one says that it has {length[:20]}")
    return await read_body(receive, limit_bytes)


async def read_command(scope: Scope, receive: Receive, limit_bytes: int, kinds: Decoders) -> tuple[Any, bool]:
    """Read a command out of a request's body; return it, and whether it came in MessagePack."""
    kind = content_type(scope)
    packed = kind in MSGPACK_TYPES
    if not packed and kind not in JSON_TYPES:
        raise UnsupportedMediaType(f"bodies are read as application/json or application/msgpack, not {kind!a}")
    return kinds.decode(await read_whole(scope, receive, limit_bytes), packed=packed), packed


class Decoders:
    """What reads one type of value out of bodies, in both languages."""

    def __init__(self, kind: Any, name: str) -> None:
        self._json = msgspec.json.Decoder(kind)
        self._packed = msgspec.msgpack.Decoder(kind)
        self._name = name

    def decode(self, body: bytes | msgspec.Raw, *, packed: bool) -> Any:
        """Return the value; raises BadRequest and Malformed."""
        try:
            return self._packed.decode(body) if packed else self._json.decode(body)
        except msgspec.ValidationError as exc:
            raise BadRequest(f"this is not a {self._name}: {exc}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Malformed(f"the body cannot be read: {exc}") from None


class Answer(NamedTuple):
    """A whole response."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    fields: tuple[tuple[bytes, bytes], ...] = ()

    def headers(self, extra: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
        """Make the header fields; answers are of one moment, hence never to be stored."""
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *self.fields,
            *extra,
        ]

    async def send(self, send: Send, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send it through ASGI."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers(extra)})
        await send({"type": "http.response.body", "body": self.body})


def problem(exc: TellwireError) -> Answer:
    """Describe an error as problem+json (RFC 9457)."""
    body: dict[str, Any] = {
        "type": f"urn:tellwire:error:{exc.code}",
        "title": exc.meaning,
        "status": exc.status,
        "detail": exc.detail,
        "code": exc.code,
    }
    if isinstance(exc, Conflict):
        body["head"] = str(exc.head) if exc.head is not None else None
    fields: list[tuple[bytes, bytes]] = []
    wait_ms = retry_after_ms(exc)
    if wait_ms is not None:
        body["retry_after_ms"] = wait_ms
        fields.append((b"retry-after", str(-(-wait_ms // 1000)).encode()))
    if isinstance(exc, Unauthorized):
        fields.append((b"www-authenticate", b'Bearer realm="tellwire"'))
    return Answer(exc.status, msgspec.json.encode(body), b"application/problem+json", tuple(fields))


class Endpoint:
    """An ASGI application for one path: subclasses answer, errors become problem+json."""

    transport: str
    """The wire's name, for the application and in metrics."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra: RawHeaders = []
        node = self.node
        try:
            extra = check_access(scope, node.access)
            caller = await self.identify(scope)
            node.throttle(caller, lasts=False)
            answer = await self.respond(scope, receive, send, extra, caller)
        except Gone:
            return
        except TellwireError as exc:
            answer = self.refuse(scope, exc)
        except Exception as exc:
            node.hub.report(f"{scope['method']} {scope['path']} failed", exc)
            answer = self.refuse(scope, Internal("the server failed to answer; its log says why"))
        if answer is not None:
            await answer.send(send, extra)

    async def identify(self, scope: Scope) -> Caller:
        """Find out who asks; raises Unauthorized, and what the application raises."""
        said = handshake(self.node, scope, self.transport)
        return Caller(await self.node.entrance.need_identity(said), self.transport, said.address)

    def refuse(self, scope: Scope, exc: TellwireError) -> Answer:
        """Make the answer that says no, and count it."""
        self.node.counters.rejects[exc.code] += 1
        return problem(exc)

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        """Return the answer, or None where it was sent already."""
        raise NotImplementedError  # pragma: no cover (every endpoint has its own)
