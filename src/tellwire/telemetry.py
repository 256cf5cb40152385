"""Spans of messages on their way, for OpenTelemetry; needs the extra ``tellwire[otel]``.

A publish is a span, and its context travels in the message as W3C Trace Context; whoever hands the message out makes a
span below that one, linked to it, on whichever node that is. Names and attributes follow OpenTelemetry's semantic
conventions for messaging.

Only the API is used here. Where spans go is decided by whoever installs an SDK; without one nothing is recorded, and a
context that a publisher gave is passed on as it came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tellwire import __version__
from tellwire.errors import TellwireError
from tellwire.message import Appended, Draft, Message

_FIELD = "traceparent"

_propagator = TraceContextTextMapPropagator()


class MessageTracer:
    """Makes the spans of one or more nodes (see tellwire.hub.Tracer).

    Args:
        provider: Where spans go; by default what was set for the process.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("tellwire", __version__, provider)

    async def publish(self, draft: Draft, append: Callable[[Draft], Awaitable[Appended]]) -> Appended:
        """Append a draft inside a span, whose context it carries from then on.

        The span is below the publisher's, if the draft came with one, else below the one that is current: an
        application's own, which publishes in the same process.
        """
        span = self._tracer.start_span(
            "tellwire publish",
            _context_of(draft.trace) if draft.trace else None,
            SpanKind.PRODUCER,
            {
                **_attributes(draft.channel, draft.id, len(draft.data)),
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
            },
        )
        try:
            appended = await append(msgspec.structs.replace(draft, trace=_trace_of(span) or draft.trace))
        except BaseException as exc:
            code = exc.code if isinstance(exc, TellwireError) else type(exc).__qualname__
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR, code)
            raise
        else:
            if appended.position is not None:
                span.set_attribute("messaging.message.id", draft.id or str(appended.position))
                span.set_attribute("tellwire.position", str(appended.position))
            if appended.duplicate:
                span.set_attribute("tellwire.duplicate", True)
            return appended
        finally:
            span.end()

    def deliver(self, messages: Sequence[Message], begin_ns: int) -> None:
        """Make a span for each message that was handed out in one flush, from its beginning until now."""
        for message in messages:
            context = _context_of(message.trace)
            published = trace.get_current_span(context).get_span_context()
            span = self._tracer.start_span(
                "tellwire deliver",
                context,
                SpanKind.CONSUMER,
                {
                    **_attributes(message.channel, message.id, len(message.data)),
                    "messaging.operation.name": "deliver",
                    "messaging.operation.type": "process",
                    "messaging.batch.message_count": len(messages),
                },
                [Link(published)],
                begin_ns,
            )
            span.end()


def _attributes(channel: str, id_: str | None, size: int) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "tellwire",
        "messaging.destination.name": channel,
        "messaging.message.body.size": size,
    }
    if id_:
        attributes["messaging.message.id"] = id_
    return attributes


def _context_of(text: str) -> Context:
    return _propagator.extract({_FIELD: text}, Context())


def _trace_of(span: Span) -> str:
    """Return a span's context as messages carry it; empty where it has none, as without an SDK."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get(_FIELD, "")
