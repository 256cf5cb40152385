"""What nodes ask each other: whole answers or none, however large they are, and figures that cost nothing to keep."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from tellwire.brokers import make_broker
from tellwire.log import Entry, Tail
from tellwire.message import Message
from tellwire.names import Namespaces
from tellwire.node import Node, Title
from tellwire.node.figures import rate_of
from tellwire.node.questions import PART_BYTES, Asked, Part
from tellwire.presence import make_presence
from tellwire.testing.harness import on_loop
from tests.redis_servers import RedisServer, needs_redis, redis_server

_prefixes = itertools.count()

ITEMS = [{"number": number, "text": "x" * 1000} for number in range(PART_BYTES * 5 // 1000)]
"""An answer of several parts."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def nodes(redis: RedisServer, *names: str) -> AsyncIterator[list[Node]]:
    """Open nodes on one log, in this process."""
    url = f"{redis.url}?prefix=roster-{next(_prefixes)}"
    async with AsyncExitStack() as stack:
        opened = []
        for name in names:
            node = Node(make_broker(url, Namespaces()), presence=make_presence(url), title=Title(name))
            await node.open()
            stack.push_async_callback(node.aclose)
            opened.append(node)
        yield opened


async def answer_largely(node: Node, wanted: bytes) -> tuple[Any, list[Any]]:
    return {"asked": msgspec.json.decode(wanted), "by": node.roster.title.name}, ITEMS


@needs_redis
@on_loop
async def test_large_answers_come_whole(redis: RedisServer) -> None:
    async with nodes(redis, "one", "two", "three") as opened:
        for node in opened:
            node.roster.answer_with("largely", answer_largely)
        answers = await opened[0].roster.ask("largely", {"x": 1}, 30.0)
        assert answers.unanswered == []
        assert {said.head["by"] for said in answers.said} == {"one", "two", "three"}
        for said in answers.said:
            assert said.head["asked"] == {"x": 1}
            assert said.items == ITEMS


@needs_redis
@on_loop
async def test_questions_at_once_are_told_apart(redis: RedisServer) -> None:
    async def echo(node: Node, wanted: bytes) -> tuple[Any, list[Any]]:
        await asyncio.sleep(0)
        return msgspec.json.decode(wanted), []

    async with nodes(redis, "one", "two") as opened:
        for node in opened:
            node.roster.answer_with("echo", echo)
        asking = [opened[number % 2].roster.ask("echo", number, 30.0) for number in range(50)]
        for number, answers in enumerate(await asyncio.gather(*asking)):
            assert [said.head for said in answers.said] == [number, number]


@needs_redis
@on_loop
async def test_question_that_a_node_does_not_know_is_not_answered(redis: RedisServer) -> None:
    async with nodes(redis, "one", "two") as opened:
        opened[0].roster.answer_with("new", answer_largely)
        answers = await opened[0].roster.ask("new", None, 0.3)
        assert [said.head["by"] for said in answers.said] == ["one"]
        assert [each.name for each in answers.unanswered] == ["two"]


def part(number: int, *, is_last: bool = False, node: str = "b") -> Part:
    return Part("q", node, number, [msgspec.Raw(b"%d" % number)], is_last)


@pytest.mark.parametrize(
    ("numbers", "is_answer"),
    [([0, 1, 2], True), ([0, 0, 1, 1, 2], True), ([0, 2], False), ([1, 2], False), ([0, 1], False), ([2, 1, 0], False)],
)
def test_answer_with_a_part_that_was_lost_counts_as_none(numbers: list[int], is_answer: bool) -> None:
    asked = Asked(["b"])
    for number in numbers:
        asked.take(part(number, is_last=number == 2))
    assert asked.done.is_set() is is_answer
    assert [said.items for said in asked.said()] == ([[0, 1, 2]] if is_answer else [])


def test_answer_of_a_node_that_was_not_known_counts_and_is_not_waited_for() -> None:
    asked = Asked(["b"])
    asked.take(part(0, node="new"))
    asked.take(part(0, is_last=True))
    assert asked.done.is_set()
    assert [said.node for said in asked.said()] == ["b"]
    asked.take(part(1, is_last=True, node="new"))
    assert sorted(said.node for said in asked.said()) == ["b", "new"]
    asked.take(part(2, node="new"))
    assert [len(said.items) for said in asked.said() if said.node == "new"] == [2]


def tail_of(*times_ms: int) -> Tail:
    tail = Tail("news", 0)
    for seq, time_ms in enumerate(times_ms, 1):
        tail.run.append(Entry(Message("news", seq, str(seq), time_ms, b"1"), "epoch", seq))
    return tail


def test_rate_is_that_of_the_last_ten_seconds() -> None:
    assert rate_of(tail_of(), 50_000) == 0
    assert rate_of(tail_of(1000, 2000), 50_000) == 0
    assert rate_of(tail_of(1000, *range(40_001, 50_000, 100)), 50_000) == 10.0
    # What was there before was dropped, so what is left is of the two seconds that it tells of.
    assert rate_of(tail_of(*range(48_000, 50_000, 10)), 50_000) == 100.0
    assert rate_of(tail_of(50_500), 50_000) == 1.0, "another node's clock may be ahead"


def test_what_is_missing_is_counted_from_a_place() -> None:
    run = tail_of(10, 20, 30, 40).run
    run.drop_first()
    assert [run.behind(seq)[0] for seq in (0, 1, 2, 4, 9)] == [3, 3, 2, 0, 0]
    first = run.behind(2)[1]
    assert first is not None
    assert first.message.time == 30
    assert run.behind(4)[1] is None
