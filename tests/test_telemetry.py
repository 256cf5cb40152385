"""Spans of messages: one for the publish, one below it for each hand-out, wherever that happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tellwire.brokers.base import Broker
from tellwire.brokers.memory import MemoryBroker
from tellwire.errors import Conflict, Unavailable
from tellwire.hub import Hub
from tellwire.message import Draft, Message, Position
from tellwire.protocol.encodings import lines
from tellwire.subscriber import Subscriber
from tellwire.tasks import Tasks
from tellwire.telemetry import MessageTracer
from tellwire.testing.faulty import FaultyBroker
from tellwire.testing.harness import on_loop
from tests.nodes import Sink, Who

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{PARENT_ID}-01"


class Case:
    """A hub whose messages are traced."""

    def __init__(self, hub: Hub, exporter: InMemorySpanExporter) -> None:
        self.hub = hub
        self._exporter = exporter

    async def read(self, *channels: str) -> None:
        subscriber = Subscriber(self.hub, Sink(), lines(chunked=True), Who())
        self.hub.enter(subscriber)
        self.hub.join(subscriber, await self.hub.place(dict.fromkeys(channels, "catch_up"), "now"))

    async def say(self, channel: str, **fields: Any) -> Any:
        """Publish, as a node does."""
        assert self.hub.tracer is not None
        return await self.hub.tracer.publish(Draft(channel, b"12345", **fields), self.hub.broker.append)

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, and forget them."""
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    async def newest(self, channel: str) -> Message:
        return (await self.hub.broker.read_back([channel], None, 1)).messages[0]


@asynccontextmanager
async def case(broker: Broker | None = None, **options: Any) -> AsyncIterator[Case]:
    tasks = Tasks()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, **options)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hub = Hub(broker or MemoryBroker(), tasks, tail_max_bytes=100_000, read_bite_bytes=10_000)
    hub.tracer = MessageTracer(provider)
    await hub.open()
    yield Case(hub, exporter)
    await tasks.aclose()
    await hub.broker.aclose()
    provider.shutdown()


def context_text(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


@on_loop
async def test_publish_goes_on_with_the_trace_of_the_publisher() -> None:
    async with case() as it:
        place = (await it.say("news", id="one", trace=GIVEN)).position
        (span,) = it.spans()
        assert (span.name, span.kind) == ("tellwire publish", SpanKind.PRODUCER)
        assert span.parent is not None
        assert format_trace_id(span.parent.trace_id) == TRACE_ID
        assert format_span_id(span.parent.span_id) == PARENT_ID
        assert dict(span.attributes or {}) == {
            "messaging.system": "tellwire",
            "messaging.destination.name": "news",
            "messaging.message.body.size": 5,
            "messaging.message.id": "one",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "tellwire.position": str(place),
        }
        assert (await it.newest("news")).trace == context_text(span), "the message carries the span, not its parent"


@on_loop
async def test_publish_without_a_trace_goes_on_with_the_span_that_is_current() -> None:
    async with case() as it:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("application")
        with tracer.start_as_current_span("request") as own:
            await it.say("news")
        (span,) = it.spans()
        assert span.parent == own.get_span_context()
        await it.say("news")
        (span,) = it.spans()
        assert span.parent is None, "and begins one where there is none"
        message = await it.newest("news")
        assert message.trace == context_text(span)
        assert (span.attributes or {})["messaging.message.id"] == message.id


@on_loop
async def test_delivery_is_a_span_below_the_publish_and_linked_to_it() -> None:
    async with case() as it:
        for _ in range(3):
            await it.read("a", "b")
        for channel in "ab":
            await it.say(channel, trace=GIVEN)
        await it.hub.broker.append(Draft("a", b"1"))
        published = it.spans()
        it.hub.flush()
        delivered = it.spans()
        assert [span.name for span in delivered] == ["tellwire deliver"] * 2, (
            "one for all readers, none without a trace"
        )
        for publish, span in zip(published, delivered, strict=True):
            context = publish.get_span_context()
            assert context is not None
            assert span.kind is SpanKind.CONSUMER
            assert span.parent is not None
            assert span.parent.span_id == context.span_id
            assert [link.context.span_id for link in span.links] == [context.span_id]
            assert format_trace_id(span.parent.trace_id) == TRACE_ID
            assert span.start_time is not None
            assert span.end_time is not None
            assert publish.start_time is not None
            assert publish.start_time <= span.start_time <= span.end_time
            attributes = span.attributes or {}
            assert attributes["messaging.operation.name"] == "deliver"
            assert attributes["messaging.destination.name"] == (publish.attributes or {})["messaging.destination.name"]
            assert attributes["messaging.batch.message_count"] == 2


@on_loop
async def test_ephemeral_messages_are_traced_too() -> None:
    async with case() as it:
        await it.read("a")
        await it.say("a", ephemeral=True)
        it.hub.flush()
        assert [span.name for span in it.spans()] == ["tellwire publish", "tellwire deliver"]


@on_loop
async def test_failure_is_told_by_its_code_and_nothing_more() -> None:
    async with case(broker := FaultyBroker()) as it:
        broker.fail_appends = 1
        with pytest.raises(Unavailable):
            await it.say("secret-channel")
        with pytest.raises(Conflict):
            await it.say("a", expect=Position("other", 1))
        for span, code in zip(it.spans(), ("unavailable", "conflict"), strict=True):
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description == code
            assert (span.attributes or {})["error.type"] == code


@on_loop
async def test_duplicate_says_so_and_the_message_keeps_its_first_trace() -> None:
    async with case() as it:
        await it.say("a", id="x", trace=GIVEN)
        first = (await it.newest("a")).trace
        await it.say("a", id="x", trace=GIVEN)
        _, again = it.spans()
        assert (again.attributes or {})["tellwire.duplicate"] is True
        assert (await it.newest("a")).trace == first


@on_loop
async def test_trace_that_is_not_sampled_is_passed_on_as_not_sampled() -> None:
    async with case(sampler=ParentBased(ALWAYS_OFF)) as it:
        await it.read("a")
        await it.say("a", trace=f"00-{TRACE_ID}-{PARENT_ID}-00")
        it.hub.flush()
        assert it.spans() == []
        trace = (await it.newest("a")).trace
        assert trace.startswith(f"00-{TRACE_ID}-")
        assert trace.endswith("-00")


@on_loop
async def test_appends_keep_their_order_through_the_tracer() -> None:
    async with case() as it:
        tasks = Tasks()
        for number in range(20):
            tasks.start(it.say("a", id=str(number)))
        read = await it.hub.broker.read(["a"], None, 100_000)
        assert [message.id for message in read.messages] == [str(number) for number in range(20)]


def test_without_an_sdk_a_given_trace_is_passed_on_as_it_came() -> None:
    # In a process of its own: a provider can be set only once for all.
    program = f"""
import asyncio
from tellwire.brokers.memory import MemoryBroker
from tellwire.hub import Hub
from tellwire.message import Draft
from tellwire.tasks import Tasks
from tellwire.telemetry import MessageTracer
from tests.nodes import Sink, Who

async def main():
    hub = Hub(MemoryBroker(), Tasks(), tail_max_bytes=1000, read_bite_bytes=1000)
    await hub.open()
    tracer = MessageTracer()
    await tracer.publish(Draft("a", b"1", trace={GIVEN!r}), hub.broker.append)
    await tracer.publish(Draft("a", b"1"), hub.broker.append)
    messages = (await hub.broker.read(["a"], None, 1000)).messages
    tracer.deliver(messages, 1)
    print([message.trace for message in messages])

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (str([GIVEN, ""]), "")
