"""The contract of appending: order, idempotence, conditions, what is delivered and when."""

from __future__ import annotations

import asyncio

import pytest

from tellwire.errors import Conflict
from tellwire.message import Appended, Draft, Message, Position
from tellwire.tasks import Tasks
from tellwire.testing.harness import Clock, MakeBroker, on_loop, opened, placed, publish, read_to_head


class AppendContract:
    """What `Broker.append` and the feed promise."""

    @on_loop
    async def test_append_counts_across_channels(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, feed):
            epoch = broker.head.epoch
            assert broker.head == Position(epoch, 0)
            places = [placed(await broker.append(Draft(channel, b"1"))) for channel in "abba"]
            seqs = [place.seq for place in places]
            assert {place.epoch for place in places} == {epoch}
            assert seqs == sorted(set(seqs))
            assert feed.seqs == seqs
            assert [message.channel for message in feed.messages] == list("abba")
            assert broker.head == places[-1]

    @on_loop
    async def test_append_keeps_what_was_published(self, make_broker: MakeBroker) -> None:
        clock = Clock()
        drafts = [
            Draft("a", b'{"x":1}', id="one", event="moved", key="k", skip="session"),
            Draft(
                "a", bytes(range(256)), packed=True, id="\N{SNOWMAN} \x00 \" ' \\ \n", event="\N{GRINNING FACE}", key=""
            ),
            Draft("a", b"", trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]
        async with opened(make_broker(clock=clock), "a") as (broker, feed):
            for draft in drafts:
                await broker.append(draft)
                clock.advance(1)
            read = await broker.read(["a"], None, 65_536)
            assert read.messages == feed.messages
            for second, (draft, message) in enumerate(zip(drafts, read.messages, strict=True)):
                assert message == Message(
                    "a",
                    message.seq,
                    draft.id or message.id,
                    Clock().now_ms + second * 1000,
                    draft.data,
                    draft.packed,
                    draft.event,
                    draft.key,
                    draft.skip,
                    draft.trace,
                )
            assert read.messages[-1].id, "a message without an id is given one"

    @on_loop
    async def test_append_is_delivered_before_it_is_acknowledged(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            for number in range(1, 20):
                place = placed(await broker.append(Draft("a", b"1")))
                assert len(feed.messages) == number
                assert feed.messages[-1].seq == place.seq == broker.head.seq

    @on_loop
    async def test_append_with_a_known_id_answers_with_the_first_place(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, feed):
            first = await broker.append(Draft("a", b"1", id="x"))
            await publish(broker, "a")
            assert first.duplicate is False
            assert await broker.append(Draft("a", b"2", id="x")) == Appended(first.position, duplicate=True)
            elsewhere = await broker.append(Draft("b", b"1", id="x"))
            assert elsewhere.duplicate is False
            assert len(feed.messages) == 3

    @on_loop
    async def test_append_forgets_an_id_after_the_window(self, make_broker: MakeBroker) -> None:
        clock = Clock()
        async with opened(make_broker(clock=clock, dedupe_window_s=10), "a") as (broker, feed):
            first = await broker.append(Draft("a", b"1", id="x"))
            clock.advance(9.999)
            assert (await broker.append(Draft("a", b"1", id="x"))).duplicate
            clock.advance(0.001)
            again = await broker.append(Draft("a", b"1", id="x"))
            assert again.duplicate is False
            assert placed(again) > placed(first)
            assert (await broker.append(Draft("a", b"1", id="x"))) == Appended(again.position, duplicate=True)
            assert len(feed.messages) == 2

    @on_loop
    async def test_append_of_one_id_at_once_is_one_message(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            answers = await asyncio.gather(*(broker.append(Draft("a", b"1", id="x")) for _ in range(50)))
            assert len({answer.position for answer in answers}) == 1
            assert [answer.duplicate for answer in answers].count(False) == 1
            assert len(feed.messages) == 1

    @on_loop
    async def test_append_looks_for_the_id_before_the_condition(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            (start,) = await publish(broker, "a")
            draft = Draft("a", b"2", id="x", expect=start)
            first = await broker.append(draft)
            await publish(broker, "a")
            assert await broker.append(draft) == Appended(first.position, duplicate=True)
            assert len(feed.messages) == 3

    @on_loop
    async def test_append_does_what_is_expected(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, _):
            nothing = Position(broker.head.epoch, 0)
            first = placed(await broker.append(Draft("a", b"1", expect=nothing)))
            await publish(broker, "b")  # another channel's news is none of this one's
            second = placed(await broker.append(Draft("a", b"2", expect=first)))
            assert second > first

    @on_loop
    async def test_append_refuses_what_is_not_expected(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a", "b") as (broker, feed):
            first, second = await publish(broker, "a", 2)
            nothing = Position(broker.head.epoch, 0)
            for wrong in (first, nothing, Position(first.epoch, second.seq + 1), Position("another", second.seq)):
                with pytest.raises(Conflict) as caught:
                    await broker.append(Draft("a", b"3", expect=wrong))
                assert caught.value.head == second
            with pytest.raises(Conflict) as caught:
                await broker.append(Draft("b", b"1", expect=second))
            assert caught.value.head == nothing
            assert len(feed.messages) == 2
            assert broker.head == second

    @on_loop
    async def test_append_lets_one_of_many_expectations_in(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            (start,) = await publish(broker, "a")
            drafts = [Draft("a", b"2", id=str(number), expect=start) for number in range(20)]
            answers = await asyncio.gather(*map(broker.append, drafts), return_exceptions=True)
            won = [answer for answer in answers if isinstance(answer, Appended)]
            lost = [answer for answer in answers if isinstance(answer, Conflict)]
            assert len(won) == 1
            assert len(lost) == 19
            assert {conflict.head for conflict in lost} == {won[0].position}
            assert len(feed.messages) == 2

    @on_loop
    async def test_append_of_ephemeral_messages_skips_the_log(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            (head,) = await publish(broker, "a")
            for number in (b"1", b"2", b"3"):
                assert await broker.append(Draft("a", number, ephemeral=True)) == Appended(None)
            assert [(message.seq, message.data) for message in feed.messages[1:]] == [(0, b"1"), (0, b"2"), (0, b"3")]
            assert broker.head == head
            assert (await read_to_head(broker, ["a"])).seqs == [head.seq]

    @on_loop
    async def test_append_places_messages_as_they_were_begun(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), *"abc") as (broker, feed):
            tasks = Tasks()
            begun: list[bytes] = []
            for number in range(300):
                data = str(number).encode()
                tasks.start(broker.append(Draft("abc"[number % 3], data)))
                begun.append(data)
                if number % 50 == 0:
                    await asyncio.sleep(0)  # some are committed while others are begun
            await publish(broker, "a", size=3)
            assert [message.data for message in feed.messages] == [*begun, b"777"]
            assert feed.seqs == sorted(set(feed.seqs))
            assert (await read_to_head(broker, ["a", "b", "c"])).messages == feed.messages

    @on_loop
    async def test_append_whose_caller_is_cancelled_stays(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            cancelled = asyncio.ensure_future(broker.append(Draft("a", b"1", id="x")))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            await publish(broker, "a")
            assert [message.id for message in feed.messages][:1] == ["x"]
            assert (await broker.append(Draft("a", b"1", id="x"))).duplicate
            assert (await read_to_head(broker, ["a"])).messages == feed.messages

    @on_loop
    async def test_append_takes_a_large_message(self, make_broker: MakeBroker) -> None:
        async with opened(make_broker(), "a") as (broker, feed):
            data = bytes(range(256)) * 8192
            await publish(broker, "a")
            await broker.append(Draft("a", data, packed=True))
            await publish(broker, "a")
            read = await read_to_head(broker, ["a"], limit_bytes=1000)
            assert [len(page) for page in read.pages] == [1, 1, 1]
            assert read.messages == feed.messages
            assert read.messages[1].data == data
