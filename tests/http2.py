"""An HTTP/2 client that decides itself how much it takes: its windows open only when the test says so."""

from __future__ import annotations

import ssl
from collections import defaultdict
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from tests.wires import Address, Closed, Connection, Fields


class Http2(Connection):
    """An HTTP/2 connection over TLS; ``bodies``, ``statuses``, ``ended`` and ``reset`` are by stream."""

    def __init__(self, server: Address, context: ssl.SSLContext) -> None:
        super().__init__(server, context=context)
        assert isinstance(self.socket, ssl.SSLSocket)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.bodies: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.stalled: set[int] = set()
        try:
            self._flush()
        except BaseException:
            self.close()
            raise

    def start(self, method: str, target: str, *, headers: Fields = (), body: bytes | None = None) -> int:
        """Send a request; return its stream."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", target), (":scheme", "https"), (":authority", self.host)]
        self.h2.send_headers(stream, [*fields, *headers], end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def cancel(self, stream: int) -> None:
        """Take back a request."""
        self.h2.reset_stream(stream)
        self._flush()

    def stall(self, stream: int) -> None:
        """Give a stream no more credit: once its window is used up it stands still."""
        self.stalled.add(stream)

    def resume(self, stream: int) -> None:
        """Give a stalled stream credit for all that it has sent, and go on doing so."""
        self.stalled.discard(stream)
        if self.bodies[stream]:
            self.h2.increment_flow_control_window(len(self.bodies[stream]), stream)
            self._flush()

    def wait_for(self, stream: int, mark: bytes) -> bytes:
        """Read until a stream's body holds `mark`; return the body up to its end."""
        start = 0
        while (place := self.bodies[stream].find(mark, start)) < 0:
            start = max(0, len(self.bodies[stream]) - len(mark))
            self.pump()
        return bytes(self.bodies[stream][: place + len(mark)])

    def finish(self, stream: int) -> bytes:
        """Read a stream to its end; return its body."""
        while stream not in self.ended:
            if stream in self.reset:
                raise Closed(bytes(self.bodies[stream]))
            self.pump()
        return bytes(self.bodies[stream])

    def wait_reset(self, stream: int) -> None:
        """Read until the server has reset a stream."""
        while stream not in self.reset:
            self.pump()

    def pump(self) -> None:
        """Read once, and take in what came."""
        if not self._buffer:
            self._fill()
        for event in self.h2.receive_data(self._take(len(self._buffer))):
            self._on(event)
        self._flush()

    def _on(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            assert event.stream_id is not None
            assert event.headers is not None
            fields = cast(list[tuple[str, str]], event.headers)  # as header_encoding has it
            self.statuses[event.stream_id] = int(dict(fields)[":status"])
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None
            assert event.data is not None
            self.bodies[event.stream_id] += event.data
            if event.flow_controlled_length:
                self.h2.increment_flow_control_window(event.flow_controlled_length)
                if event.stream_id not in self.stalled and event.stream_ended is None:
                    self.h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            assert event.stream_id is not None
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            assert event.stream_id is not None
            self.reset.add(event.stream_id)

    def _flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self.send(data)
