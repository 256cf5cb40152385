"""Publishing over HTTP: one message, or a list of them."""

from __future__ import annotations

from typing import Any

import msgspec

from tellwire.errors import BadRequest, Conflict, Malformed, TellwireError, TooLarge, UnsupportedMediaType
from tellwire.message import Appended
from tellwire.node import Node
from tellwire.protocol.commands import Publish
from tellwire.transports.requests import Answer, Endpoint, RawHeaders, Receive, Scope, Send, header, read_body

LIST_MAX = 10_000
"""Messages in one list."""

MSGPACK_TYPES = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")
JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain", "")
"""Besides its own type, what curl and simple clients say of the JSON that they send. Pages of other origins, which may
send these without asking first, are refused by their Origin."""


class PublishEndpoint(Endpoint):
    """``POST /v1/messages``."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.access, node.hub.report)
        self._node = node
        self._json = msgspec.json.Decoder(Publish | list[msgspec.Raw])
        self._packed = msgspec.msgpack.Decoder(Publish | list[msgspec.Raw])
        self._json_one = msgspec.json.Decoder(Publish)
        self._packed_one = msgspec.msgpack.Decoder(Publish)

    async def respond(self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders) -> Answer | None:
        kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
        packed = kind in MSGPACK_TYPES
        if not packed and kind not in JSON_TYPES:
            raise UnsupportedMediaType(f"publishes are read as application/json or application/msgpack, not {kind!a}")
        limit = self._node.limits.request_max_bytes
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise TooLarge(f"a request has at most {limit} bytes; this one says that it has {length[:20]}")
        body = await read_body(receive, limit)
        what = self._decode(self._packed if packed else self._json, body)
        if isinstance(what, Publish):
            key = header(scope, b"idempotency-key")
            if key is not None:
                if what.id is not None and what.id != key:
                    raise BadRequest("the message's id and the Idempotency-Key differ; give one of them")
                what.id = key
            answer: Any = describe(await self._node.publish(what, None, packed=packed))
        else:
            answer = await self._publish_all(what, packed=packed)
        return Answer(200, msgspec.json.encode(answer))

    async def _publish_all(self, items: list[msgspec.Raw], *, packed: bool) -> list[dict[str, Any]]:
        """Publish a list in its order; each item succeeds or fails by itself."""
        if len(items) > LIST_MAX:
            raise TooLarge(f"a list has at most {LIST_MAX} messages; this one has {len(items)}")
        node = self._node
        decoder = self._packed_one if packed else self._json_one
        answers: list[dict[str, Any]] = []

        async def publish(place: int, item: msgspec.Raw) -> None:
            try:
                answers[place] = describe(await node.publish(self._decode(decoder, item), None, packed=packed))
            except TellwireError as exc:
                error: dict[str, Any] = {"code": exc.code, "message": exc.detail}
                if isinstance(exc, Conflict):
                    error["head"] = str(exc.head) if exc.head is not None else None
                answers[place] = {"error": error}

        # Each is begun before the first is waited for: a durable broker commits them together.
        tasks = []
        for place, item in enumerate(items):
            answers.append({})
            if (task := node.tasks.start(publish(place, item))) is not None:
                tasks.append(task)
        for task in tasks:
            await task
        return answers

    def _decode(self, decoder: Any, body: bytes | msgspec.Raw) -> Any:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as exc:
            raise BadRequest(f"this is not a publish: {exc}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Malformed(f"the body cannot be read: {exc}") from None


def describe(appended: Appended) -> dict[str, Any]:
    """Make the answer to a publish."""
    position = str(appended.position) if appended.position is not None else None
    return {"position": position, "duplicate": appended.duplicate}
