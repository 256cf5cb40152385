"""The methods of the service tellwire.v1.Tellwire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import msgspec

from tellwire.errors import BadRequest
from tellwire.message import Gap
from tellwire.names import Policy, check_channel
from tellwire.node import Attendance, Caller, Node, check_count
from tellwire.protocol.commands import Call, OnGap, Presence
from tellwire.protocol.proto import tellwire_pb2 as pb
from tellwire.protocol.protobuf import ProtobufEncoding, fill, parse, read_publish, read_request, to_proto, word_of
from tellwire.protocol.pushes import GapPush, PresencePush, Push, Result
from tellwire.transports.grpc.calls import Calls, metadata_text, need_session, time_left_ms
from tellwire.transports.grpc.doors import ConversationDoor, StreamDoor
from tellwire.transports.grpc.statuses import Context
from tellwire.transports.grpc.uploads import Upload

SERVICE = pb.DESCRIPTOR.services_by_name["Tellwire"].full_name

HISTORY_LIMIT = 100
"""Messages in a page of history, where the request does not say."""

Unary = Callable[[bytes, Context], Awaitable[bytes]]


class Service(grpc.GenericRpcHandler):
    """What a node answers over gRPC.

    Messages are bytes here: those that go to many readers are made once, and not by gRPC for each.
    """

    def __init__(self, node: Node, *, has_tls: bool) -> None:
        self._node = node
        self._calls = Calls(node, has_tls=has_tls)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Publish": grpc.unary_unary_rpc_method_handler(self._unary("Publish", self._publish)),
            "History": grpc.unary_unary_rpc_method_handler(self._unary("History", self._history)),
            "Presence": grpc.unary_unary_rpc_method_handler(self._unary("Presence", self._presence)),
            "Call": grpc.unary_unary_rpc_method_handler(self._unary("Call", self._call)),
            "Subscribe": grpc.unary_stream_rpc_method_handler(self._subscribe),
            "PublishStream": grpc.stream_unary_rpc_method_handler(self._publish_stream),
            "Connect": grpc.stream_stream_rpc_method_handler(self._connect),
        }
        self._handlers = {f"/{SERVICE}/{name}": handler for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)

    def _unary(self, name: str, answer: Callable[..., Awaitable[bytes]]) -> Unary:
        async def answered(request: bytes, context: Context) -> bytes:
            async with self._calls.guarded(context, name):
                caller, _, encoding = await self._calls.ask(context, f"/{SERVICE}/{name}")
                return await answer(request, context, caller, encoding)
            raise AssertionError("refused calls do not come here")

        return answered

    async def _publish(self, payload: bytes, context: Context, caller: Caller, encoding: ProtobufEncoding) -> bytes:
        command, packed = read_publish(parse(pb.PublishRequest, payload))
        command.trace = command.trace or metadata_text(context, "traceparent")
        appended = await self._calls.complete(self._node.publish(command, caller, packed=packed))
        position = str(appended.position) if appended.position is not None else ""
        return pb.Published(position=position, duplicate=appended.duplicate).SerializeToString()

    async def _history(self, payload: bytes, context: Context, caller: Caller, encoding: ProtobufEncoding) -> bytes:
        node = self._node
        request: pb.HistoryRequest = parse(pb.HistoryRequest, payload)
        wanted = await node.reading.wanted_of(caller, _channels(node, request.channels, caller), None, None)
        limit = check_count("limit", request.limit or HISTORY_LIMIT, least=1)
        given = [name for name in ("before", "since", "last") if request.HasField(name)]
        if len(given) > 1:
            raise BadRequest(f"{' and '.join(given)} exclude each other: give one of them")
        if given in ([], ["before"]):
            slice_ = await node.reading.read_back(wanted, request.before or "now", limit=limit)
        else:
            since = request.since if request.HasField("since") else None
            last = request.last if request.HasField("last") else None
            on_gap = cast(OnGap, word_of("on_gap", request.on_gap) or "oldest")
            slice_ = await node.reading.read(wanted, since, limit=limit, last=last, on_gap=on_gap)
        epoch = slice_.position.epoch
        # Backwards all is shown, as the history that it is.
        skip = caller.session if given == ["since"] else None
        page = pb.HistoryPage(cursor=str(slice_.position))
        for message in slice_.messages:
            if not message.skip or message.skip != skip:
                page.messages.append(encoding.message(message, epoch))
        _fill_gap(page.gap, slice_.gap)
        answer = page.SerializeToString()
        node.counters.delivered(len(page.messages), len(answer))
        return answer

    async def _presence(self, payload: bytes, context: Context, caller: Caller, encoding: ProtobufEncoding) -> bytes:
        node, packed = self._node, encoding.codec.binary
        request: pb.PresenceRequest = parse(pb.PresenceRequest, payload)
        command: Presence = read_request(Presence, request, packed=packed)
        if command.enter is None:
            channel = check_channel(command.channel)
            await node.allow(caller, "presence", [channel])
            there = await node.members.look(channel, caller.client if caller.session else "")
            # As `look` tells it, in JSON.
            return to_proto(there, packed=False).presence.SerializeToString()
        need_session(caller)
        answers: list[Push] = []
        await self._calls.complete(node.carry_out(caller, command, answers.append, packed=packed))
        assert isinstance(answers[0], PresencePush)
        return to_proto(answers[0], packed=packed).presence.SerializeToString()

    async def _call(self, payload: bytes, context: Context, caller: Caller, encoding: ProtobufEncoding) -> bytes:
        node, packed = self._node, encoding.codec.binary
        command: Call = read_request(Call, parse(pb.CallRequest, payload), packed=packed)
        left_ms = time_left_ms(context)
        if left_ms is not None:
            asked_ms = command.timeout_ms
            command = msgspec.structs.replace(
                command, timeout_ms=min(left_ms, left_ms if asked_ms is None else asked_ms)
            )
        answers: list[Push] = []
        await node.carry_out(caller, command, answers.append, packed=packed)
        assert isinstance(answers[0], Result)
        return to_proto(answers[0], packed=packed).result.SerializeToString()

    async def _subscribe(self, payload: bytes, context: Context) -> None:
        node, calls = self._node, self._calls
        async with calls.guarded(context, "Subscribe"):
            caller, _, encoding = await calls.ask(context, f"/{SERVICE}/Subscribe")
            request: pb.SubscribeRequest = parse(pb.SubscribeRequest, payload)
            policy = cast(Policy | None, word_of("policy", request.policy))
            on_gap = cast(OnGap, word_of("on_gap", request.on_gap) or "oldest")
            attendance = _attendance(request.presence)
            if attendance == "enter":
                need_session(caller)
            channels = _channels(node, request.channels, caller)
            wanted = await node.reading.wanted_of(caller, channels, policy, attendance)
            async with calls.lasting(context, caller):
                since = request.since if request.HasField("since") else None
                last = request.last if request.HasField("last") else None
                placement = await node.reading.place(wanted, since, last, on_gap)
                try:
                    door = StreamDoor(node, encoding, caller, context)
                except BaseException:
                    node.hub.let_go(placement.subscriptions)
                    raise
                greeting = node.greet(door.subscriber)
                # Who is cut before the gap has what it came with still, and is told once more.
                greeting.cursor = str(placement.cursor) if placement.gap is None else placement.gap.from_
                door.send(greeting)
                if placement.gap is not None:
                    door.send(GapPush.of(placement.gap))
                node.hub.join(door.subscriber, placement)
                if attendance == "enter":
                    try:
                        await node.members.attend(caller, channels, door.subscriber)
                    except BaseException:
                        door.dismiss()
                        raise
                await door.serve()

    async def _publish_stream(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        calls = self._calls
        async with calls.guarded(context, "PublishStream"):
            caller, _, _ = await calls.ask(context, f"/{SERVICE}/PublishStream")
            async with calls.lasting(context, caller):
                summary = await Upload(self._node, caller).carry_out(requests)
                return summary.SerializeToString()
        raise AssertionError("refused calls do not come here")

    async def _connect(self, requests: AsyncIterator[bytes], context: Context) -> None:
        node, calls = self._node, self._calls
        async with calls.guarded(context, "Connect"):
            caller, encoding = await calls.identify(context, f"/{SERVICE}/Connect")
            async with calls.lasting(context, caller) as visit:
                door = ConversationDoor(node, encoding, caller, context)
                if caller.identity is None:
                    # It has to say who it is, and makes room for others, should there be many of its kind.
                    caller.visit = visit
                    visit.unknown(door.make_room)
                elif node.own_channels(caller):
                    door.conversation.open(metadata_text(context, "tellwire-since"))
                await door.converse(requests)


def _channels(node: Node, named: Any, caller: Caller) -> list[str]:
    channels = list(dict.fromkeys(named)) or list(node.own_channels(caller))
    if not channels:
        raise BadRequest("no channel is named; give one at least")
    return channels


def _attendance(number: int) -> Attendance | None:
    if number not in pb.Attendance.values():
        raise BadRequest(f"presence: there is no {number}; there are 1 (watch) and 2 (enter)")
    words: dict[int, Attendance] = {pb.ATTENDANCE_WATCH: "watch", pb.ATTENDANCE_ENTER: "enter"}
    return words.get(number)


def _fill_gap(target: pb.Gap, gap: Gap | None) -> None:
    if gap is not None:
        fill(target, gap, packed=False)
