"""The vectors of the spec, against the client; the client in JavaScript runs the same files."""

from __future__ import annotations

import json
from typing import Any, Self

import httpx
import msgspec
import pytest

from tellwire.client import Settings, Subscription
from tellwire.client.backoff import Backoff, wait_ms
from tellwire.client.failures import closed_with, refused
from tellwire.client.place import Place, lowest, split
from tellwire.client.wire import JSON, PACKED
from tellwire.errors import InvalidCursor
from tellwire.message import Gap
from tests.client.virtual_time import run
from tests.client.world import World, settle
from tests.serving import ROOT

SPEC = ROOT / "spec"


def vectors(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SPEC / "vectors" / f"{name}.json").read_text("ascii"))
    return loaded


def cases(name: str, key: str = "cases") -> pytest.MarkDecorator:
    found = vectors(name)[key]
    return pytest.mark.parametrize("case", found, ids=[f"{key}-{number}" for number in range(len(found))])


NOT_READ = {"session"}
"""Fields of pushes that the client has no use for."""


class Nobody:
    """Listens to a subscription."""

    def changed(self) -> None: ...

    def ended(self, subscription: Subscription) -> None: ...


@cases("backoff")
def test_wait_after_so_many_failures(case: dict[str, Any]) -> None:
    assert wait_ms(case["failures"], case["random"]) == case["wait_ms"]


@cases("backoff", "told")
def test_what_the_server_told_wins(case: dict[str, Any]) -> None:
    told = case.get("reconnect_in_ms", case.get("retry_ms"))
    assert wait_ms(case["failures"], 1, told) == case["wait_ms"]
    backoff = Backoff(lambda: 1.0)
    backoff.failures = case["failures"]
    assert backoff.next_ms(told) == case["wait_ms"]


@cases("backoff", "reset")
def test_schedule_begins_anew_after_one_that_worked(case: dict[str, Any]) -> None:
    backoff = Backoff(lambda: 0.0)
    for outcome, base_ms in zip(case["outcomes"], case["base_ms"], strict=True):
        if outcome == "fail":
            assert backoff.next_ms() == base_ms
        else:
            backoff.reset()


@cases("since")
def test_since_is_checked_before_the_server_is_asked(case: dict[str, Any]) -> None:
    async def test() -> None:
        if "error" in case:
            with pytest.raises(InvalidCursor):
                Subscription("a", Nobody(), Settings(), since=case["since"])
        else:
            wish = Subscription("a", Nobody(), Settings(), since=case["since"]).wish
            assert wish == {"since": case["since"]}

    run(test)


def test_positions_are_split() -> None:
    found = vectors("positions")
    for case in found["positions"]:
        place = split(case["text"])
        assert place is not None
        assert (place.epoch, place.seq) == (case["epoch"], case["seq"])
    for text in found["invalid_positions"]:
        assert split(text) is None
    for case in found["cursors"]:
        assert lowest([case["text"]]) == case["text"]


@cases("gaps")
def test_reader_has_the_messages_is_told_of_the_gap_and_stands_at_the_cursor(case: dict[str, Any]) -> None:
    epoch = vectors("gaps")["epoch"]
    read = case["read"]
    gap = None if case["gap"] is None else msgspec.convert(case["gap"], Gap)
    places = {channel: Place() for channel in read["channels"]}
    if "." in str(read["since"]):
        for place in places.values():
            place.at(read["since"])

    def tell() -> list[str]:
        return [channel for channel, place in places.items() if gap and channel in gap.channels and place.gap(gap)]

    def take() -> list[int]:
        return [seq for seq in case["seqs"] if places[case["publish"][seq - 1]].take(epoch, seq)]

    assert tell() == (list(gap.channels) if gap else [])
    assert take() == case["seqs"]
    for place in places.values():
        place.at(case["cursor"])
        assert place.cursor == case["cursor"]
    # The same answer once more, over another connection: nothing in it is news. (An epoch that was lost twice is.)
    if gap is None or gap.reason != "epoch":
        assert tell() == []
        assert take() == []


@cases("pushes")
def test_pushes_are_understood_in_both_languages(case: dict[str, Any]) -> None:
    push = case["push"]
    for language, payload in ((JSON, json.dumps(push).encode()), (PACKED, bytes.fromhex(case["msgpack"]))):
        read = language.decode(payload)
        for name, value in push.items():
            found: Any = getattr(read, {"from": "from_"}.get(name, name), None)
            if name in NOT_READ:
                continue
            if name == "data":
                assert language.value(found) == JSON.value(msgspec.Raw(json.dumps(value).encode()))
            elif name == "member":
                assert found.client == value["client"]
                assert language.member(found).state == value.get("state")
            elif name == "members" and value is not None:
                assert [each.client for each in found] == [each["client"] for each in value]
            elif name == "gap" and value is not None:
                assert msgspec.to_builtins(found) == {**value, "channels": tuple(value["channels"])}
            else:
                assert found == (tuple(value) if name == "channels" else value)


@pytest.mark.parametrize("field", [{}, {"seq": "x"}, {"data": None, "member": 5}])
def test_push_of_another_kind_is_ignored(field: dict[str, Any]) -> None:
    push = {"type": "weather", **field}
    assert JSON.decode(json.dumps(push)).type == "weather"
    assert PACKED.decode(msgspec.msgpack.encode(push)).type == "weather"


class _Stream(httpx.AsyncByteStream):
    """A stream that is cut as it is told to be."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop(0)


@cases("sse", "messages")
def test_events_are_read_in_any_cut(case: dict[str, Any]) -> None:
    """The vectors' events, whose data is not in an envelope, are put into one; cut after each byte."""
    message = case["message"]
    place = f"id: {case['epoch']}.{message['seq']}\n" if message["seq"] else ""
    envelope = {**message, "type": "message", "data": json.loads(message["data"])}
    written = f"id: {case['epoch']}.0\n\n{place}data: {json.dumps(envelope)}\n\n".encode()

    async def test() -> None:
        async with World(("sse",)) as world:
            had: list[bytes] = [written[at : at + 1] for at in range(len(written))]

            def answer(what: str, fields: dict[str, Any]) -> httpx.Response | None:
                if what != "GET /v1/events":
                    return None
                return httpx.Response(200, stream=_Stream(had))

            world.server.answer = answer
            data = world.collect("news", since=f"{case['epoch']}.0")
            await settle()
            # What has no place is for who is there already, not for who is just coming.
            assert data == ([json.loads(message["data"])] if message["seq"] else [])

    run(test)


def test_who_comes_back_after_which_close_code() -> None:
    codes = json.loads((SPEC / "codes.json").read_text())
    for each in codes["close_codes"]:
        assert closed_with(each["code"], "").is_final is not each["reconnect"], each


def test_answer_is_what_its_problem_says_or_its_status() -> None:
    codes = json.loads((SPEC / "codes.json").read_text())
    for each in codes["errors"]:
        body = json.dumps({"code": each["code"], "status": each["status"], "detail": "why"}).encode()
        failure = refused(each["status"], body, "3")
        assert (failure.code, str(failure.error), failure.retry_ms) == (each["code"], "why", 3000)
    later = json.dumps({"code": "invented_later", "status": 409}).encode()
    assert refused(409, later).code == "bad_request"
    assert refused(501, later).code == "internal"
    # What is no answer of ours says nothing of what was asked: it is asked again.
    assert refused(502, b"<html>").code == "disconnected"
    assert refused(503, b"<html>", "Wed, 21 Oct 2026 07:28:00 GMT").retry_ms is None
    assert refused(401, b"<html>").code == "unauthorized"
