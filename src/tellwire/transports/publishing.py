"""Publishing over HTTP: one message, or a list of them."""

from __future__ import annotations

from typing import Any

import msgspec

from tellwire.errors import BadRequest, Conflict, TellwireError, TooLarge
from tellwire.message import Appended
from tellwire.node import Caller
from tellwire.protocol.commands import Publish
from tellwire.protocol.session import Queue, retry_after_ms
from tellwire.transports.requests import (
    Answer,
    Decoders,
    Endpoint,
    RawHeaders,
    Receive,
    Scope,
    Send,
    header,
    read_command,
)

LIST_MAX = 10_000
"""Messages in one list."""

_ONE = Decoders(Publish, "publish")
_ANY = Decoders(Publish | list[msgspec.Raw], "publish")


class PublishEndpoint(Endpoint):
    """``POST /v1/messages``."""

    transport = "publish"

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, extra: RawHeaders, caller: Caller
    ) -> Answer | None:
        what, packed = await read_command(scope, receive, self.node.limits.request_max_bytes, _ANY)
        trace = header(scope, b"traceparent")
        if isinstance(what, Publish):
            what.trace = what.trace or trace
            key = header(scope, b"idempotency-key")
            if key is not None:
                if what.id is not None and what.id != key:
                    raise BadRequest("the message's id and the Idempotency-Key differ; give one of them")
                what.id = key
            answer: Any = describe(await self.publish(what, caller, packed=packed))
        else:
            answer = await self._publish_all(what, caller, trace, packed=packed)
        return Answer(200, msgspec.json.encode(answer))

    async def publish(self, command: Publish, caller: Caller, *, packed: bool) -> Appended:
        """Publish one message."""
        return await self.node.publish(command, caller, packed=packed)

    async def _publish_all(
        self, items: list[msgspec.Raw], caller: Caller, trace: str | None, *, packed: bool
    ) -> list[dict[str, Any]]:
        """Publish a list in its order; each item succeeds or fails by itself, but for one refused for a moment."""
        if len(items) > LIST_MAX:
            raise TooLarge(f"a list has at most {LIST_MAX} messages; this one has {len(items)}")
        node = self.node
        answers: list[dict[str, Any]] = []
        queue = Queue()

        def fail(place: int, exc: TellwireError) -> None:
            node.counters.rejects[exc.code] += 1
            error: dict[str, Any] = {"code": exc.code, "message": exc.detail}
            if (wait_ms := retry_after_ms(exc)) is not None:
                error["retry_after_ms"] = wait_ms
            if isinstance(exc, Conflict):
                error["head"] = str(exc.head) if exc.head is not None else None
            answers[place] = {"error": error}

        async def publish(place: int, item: msgspec.Raw) -> None:
            try:
                command = _ONE.decode(item, packed=packed)
            except TellwireError as exc:
                fail(place, exc)
                return
            refusal = queue.refusal_of(command)
            if refusal is not None:
                fail(place, refusal)
                return
            command.trace = command.trace or trace
            try:
                answers[place] = describe(await self.publish(command, caller, packed=packed))
            except TellwireError as exc:
                queue.failed(command, exc)
                fail(place, exc)

        # Each is begun before the first is waited for: a durable broker commits them together. Where the application is
        # asked first, each waits for the one before it, or their places would be in the order of its answers.
        tasks = []
        for place, item in enumerate(items):
            answers.append({})
            if node.publishes_wait:
                await publish(place, item)
                continue
            if (task := node.tasks.start(publish(place, item))) is not None:
                tasks.append(task)
        for task in tasks:
            await task
        return answers


def describe(appended: Appended) -> dict[str, Any]:
    """Make the answer to a publish."""
    position = str(appended.position) if appended.position is not None else None
    return {"position": position, "duplicate": appended.duplicate}
