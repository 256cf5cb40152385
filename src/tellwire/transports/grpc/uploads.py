"""Many messages in one stream, answered with one summary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from tellwire.errors import CloseCode, RateLimited, RequestError, ServerError, TellwireError
from tellwire.message import Appended
from tellwire.node import Caller, Node
from tellwire.protocol.commands import Publish
from tellwire.protocol.encodings import PROCESS
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.protobuf import parse, read_publish
from tellwire.transports.grpc.statuses import error_of, error_of_close

SEQS_MAX = 10_000
"""Messages whose places are in a summary; the places of all would make it grow with the stream."""

FAILURES_MAX = 100


class Upload:
    """A stream of messages on their way into the log.

    It is let in as a reader is, though it reads nothing: so it ends with its token, with its user and with the node.
    """

    hears = False

    def __init__(self, node: Node, caller: Caller) -> None:
        self.writable = True
        self._node = node
        self._caller = caller
        self._summary = pb.PublishSummary(epoch=node.hub.epoch)
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._failure: asyncio.Future[TellwireError] = asyncio.get_running_loop().create_future()
        self._limited: RateLimited | None = None
        self._is_beginning = False
        self.subscriber = node.admit(self, PROCESS, caller, beats=False)

    def write(self, batch: Any) -> None:
        """Nothing is read."""

    def close(self, code: CloseCode, reason: str, reconnect_in_ms: int | None = None) -> None:
        self._node.dismiss(self.subscriber, code, reason)
        self._stop(error_of_close(code, reason))

    def _stop(self, error: TellwireError | None) -> None:
        if error is not None and not self._failure.done():
            self._failure.set_result(error)

    async def carry_out(self, requests: AsyncIterator[bytes]) -> pb.PublishSummary:
        """Publish what comes, in its order; raises what the server or the caller cannot go on with."""
        reading = asyncio.ensure_future(self._read(requests))
        try:
            ends: set[asyncio.Future[Any]] = {reading, self._failure}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                raise self._failure.result()
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._node.dismiss(self.subscriber)
        return self._summary

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for payload in requests:
            request: pb.PublishRequest = parse(pb.PublishRequest, payload)
            index = self._summary.received
            self._summary.received += 1
            if index < SEQS_MAX:
                self._summary.seqs.append(0)
            try:
                command, packed = read_publish(request)
            except RequestError as exc:
                self._fail(index, request.id, exc)
            else:
                await self._publish(index, command, packed)
        while self._in_flight:
            self._changed.clear()
            await self._changed.wait()

    async def _publish(self, index: int, command: Publish, packed: bool) -> None:
        node = self._node
        # Where the application is asked first, each waits for the one before it, or their places would be in the order
        # of its answers.
        most = 1 if node.publishes_wait else node.limits.in_flight_max
        while True:
            while self._in_flight >= most:
                self._changed.clear()
                await self._changed.wait()
            self._in_flight += 1
            self._limited, self._is_beginning = None, True
            work = node.publish(command, self._caller, packed=packed, lasts=True)
            node.tasks.start(work, partial(self._done, index, command))
            self._is_beginning = False
            limited: RateLimited | None = self._limited
            if limited is None:
                return
            # Who sends too much at a time is taken more slowly, down to its flow control.
            await asyncio.sleep(limited.retry_after_s or 0.1)

    def _done(self, index: int, command: Publish, appended: Appended | None, exc: BaseException | None) -> None:
        self._in_flight -= 1
        self._changed.set()
        summary = self._summary
        if appended is not None:
            if appended.duplicate:
                summary.duplicates += 1
            else:
                summary.published += 1
            if appended.position is not None:
                summary.last_position = str(appended.position)
                if appended.position.epoch != summary.epoch:  # the log was lost meanwhile
                    summary.epoch = appended.position.epoch
                    summary.seqs[:] = [0] * len(summary.seqs)
                if index < SEQS_MAX:
                    summary.seqs[index] = appended.position.seq
        elif isinstance(exc, RateLimited) and self._is_beginning:
            self._limited = exc
        elif isinstance(exc, RequestError):
            self._fail(index, command.id, exc)
        elif isinstance(exc, ServerError):
            self._stop(exc)
        elif exc is not None:
            self._node.hub.report("publish failed", exc)
            self._stop(error_of_close(CloseCode.INTERNAL_ERROR, "the server failed to do this; its log says why"))

    def _fail(self, index: int, name: str | None, exc: TellwireError) -> None:
        self._node.counters.rejects[exc.code] += 1
        self._summary.failed += 1
        if len(self._summary.failures) < FAILURES_MAX:
            self._summary.failures.add(index=index, id=name or "", error=error_of(exc))
