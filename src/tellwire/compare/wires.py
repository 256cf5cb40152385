"""The table of the transports that are measured; to add one is to write its reader and to name it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from tellwire.compare.clients import GrpcPublisher, GrpcReader, WebRtcPublisher, WebRtcReader
from tellwire.compare.polling import LongPollReader, PollReader
from tellwire.compare.publishers import HttpPublisher, PackedWebSocketPublisher, Publisher, WebSocketPublisher
from tellwire.compare.reader import Reader
from tellwire.compare.site import Site
from tellwire.compare.streams import NdjsonReader, SseReader
from tellwire.compare.websocket import PackedWebSocketReader, WebSocketReader


class Wire(NamedTuple):
    """A transport."""

    key: str
    title: str
    reader: Callable[..., Reader]
    publisher: Callable[[Site], Publisher]
    is_stream: bool = False
    """Whether it is one answer without an end, which a proxy may keep to itself."""
    is_paced: bool = False
    """Whether the reader itself decides when it hears of something."""
    door: Literal["http", "grpc", "udp"] = "http"
    """Where it goes in: the server's port, gRPC's own, or sockets that no TCP proxy carries."""
    idle_max: int = 1_000_000
    """How many idle connections are opened for their memory, where each takes its time."""


WIRES = (
    Wire("poll", "Short polling", PollReader, HttpPublisher, is_paced=True),
    Wire("longpoll", "Long polling", LongPollReader, HttpPublisher),
    Wire("sse", "Server-Sent Events", SseReader, HttpPublisher, is_stream=True),
    Wire("ndjson", "NDJSON stream", NdjsonReader, HttpPublisher, is_stream=True),
    Wire("websocket", "WebSocket, JSON", WebSocketReader, WebSocketPublisher),
    Wire("websocket-msgpack", "WebSocket, MessagePack", PackedWebSocketReader, PackedWebSocketPublisher),
    Wire("grpc", "gRPC", GrpcReader, GrpcPublisher, door="grpc", idle_max=50),
    Wire("webrtc", "WebRTC data channel", WebRtcReader, WebRtcPublisher, door="udp", idle_max=20),
)

BY_KEY = {wire.key: wire for wire in WIRES}
