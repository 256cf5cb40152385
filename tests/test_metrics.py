"""What Prometheus is told of a node, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tellwire.brokers.memory import MemoryBroker
from tellwire.brokers.sqlite import SqliteBroker
from tellwire.counters import SECONDS
from tellwire.errors import CloseCode
from tellwire.message import Draft
from tellwire.metrics import measure_lag, render
from tellwire.node import Node
from tellwire.protocol.encodings import lines
from tellwire.subscriber import Subscriber
from tellwire.testing.harness import on_loop
from tests.nodes import Sink, Who
from tests.serving import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "tellwire.json"

SCRAPE_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def busy(node: Node) -> None:
    """Count at least one of everything."""
    counters = node.counters
    counters.opened("websocket")
    counters.commands["publish"] += 1
    counters.published(time.perf_counter(), 5, duplicate=False)
    counters.published(time.perf_counter(), 5, duplicate=True)
    counters.delivered(2, 100, readers=10)
    counters.flushed(2, int(time.time() * 1000))
    counters.gaps["slow"] += 1
    counters.rejects["forbidden"] += 1
    counters.closes[CloseCode.SLOW] += 1
    counters.limits["connections_max"] += 1
    counters.hooked("publish", time.perf_counter(), failed=True)
    counters.presence_enters += 2
    counters.presence_sweeps += 1


def samples(node: Node) -> dict[str, float]:
    """Scrape a node; return samples by name and labels."""
    body, _ = render(node)
    found = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def join(node: Node, channel: str, *, writable: bool = True) -> Subscriber:
    subscriber = Subscriber(node.hub, Sink(writable=writable), lines(chunked=True), Who())
    node.hub.enter(subscriber)
    node.hub.join(subscriber, await node.hub.place({channel: "catch_up"}, "now"))
    return subscriber


def test_render_tells_everything_that_was_counted() -> None:
    node = Node(MemoryBroker())
    busy(node)
    seen = samples(node)
    expected = {
        "tellwire_ready": 0,
        "tellwire_connections{transport=websocket}": 1,
        "tellwire_connections_opened_total{transport=websocket}": 1,
        "tellwire_commands_total{type=publish}": 1,
        "tellwire_messages_published_total": 1,
        "tellwire_published_bytes_total": 5,
        "tellwire_publish_duplicates_total": 1,
        "tellwire_publish_seconds_count": 2,
        "tellwire_messages_delivered_total": 20,
        "tellwire_delivered_bytes_total": 1000,
        "tellwire_flush_messages_sum": 2,
        "tellwire_flush_messages_bucket{le=1.0}": 0,
        "tellwire_flush_messages_bucket{le=2.0}": 1,
        "tellwire_flush_messages_bucket{le=+Inf}": 1,
        "tellwire_deliver_lag_seconds_count": 1,
        "tellwire_gaps_total{reason=slow}": 1,
        "tellwire_gaps_total{reason=epoch}": 0,
        "tellwire_rejects_total{code=rate_limited}": 0,
        "tellwire_rejects_total{code=forbidden}": 1,
        "tellwire_closes_total{code=4001}": 1,
        "tellwire_limit_hits_total{limit=connections_max}": 1,
        "tellwire_hook_seconds_count{hook=publish}": 1,
        "tellwire_hook_failures_total{hook=publish}": 1,
        "tellwire_presence_changes_total{change=enter}": 2,
        "tellwire_presence_changes_total{change=sweep}": 1,
        "tellwire_broker_history_channels": 0,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert any(name.startswith("tellwire_build_info{") and "MemoryBroker" in name for name in seen)
    assert seen["process_start_time_seconds"] > 0


def test_buckets_are_cumulative_and_hold_all() -> None:
    node = Node(MemoryBroker())
    for seconds in (0.0, 0.001, 0.3, 99.0):
        node.counters.publish_s.observe(seconds)
    seen = samples(node)
    counts = [seen[f"tellwire_publish_seconds_bucket{{le={float(bound)}}}"] for bound in SECONDS]
    assert counts == sorted(counts)
    assert seen["tellwire_publish_seconds_bucket{le=0.001}"] == 2
    assert (counts[-1], seen["tellwire_publish_seconds_bucket{le=+Inf}"]) == (3, 4)
    assert seen["tellwire_publish_seconds_sum"] == pytest.approx(99.301)


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "nonsense;;;=,", "a" * 10_000])
def test_render_answers_in_the_plain_format_by_default(accept: str) -> None:
    body, content_type = render(Node(MemoryBroker()), accept)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert list(parse_text(body.decode()))


def test_render_answers_in_openmetrics_to_those_who_ask_for_it() -> None:
    node = Node(MemoryBroker())
    busy(node)
    body, content_type = render(node, SCRAPE_ACCEPT)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert families["tellwire_publish_seconds"].type == "histogram"
    assert families["tellwire_messages_published"].type == "counter"


def test_nodes_of_one_process_are_told_apart_and_nothing_is_registered_for_all() -> None:
    before = {family.name for family in REGISTRY.collect()}
    first, second = Node(MemoryBroker()), Node(MemoryBroker())
    busy(first)
    assert samples(first)["tellwire_messages_published_total"] == 1
    assert samples(second)["tellwire_messages_published_total"] == 0
    assert {family.name for family in REGISTRY.collect()} == before


@on_loop
async def test_labels_hold_nothing_that_peers_can_fill() -> None:
    node = Node(MemoryBroker())
    await node.hub.open()
    for number in range(50):
        await join(node, f"channel-{number}")
        await node.broker.append(Draft(f"channel-{number}", b"1"))
    node.hub.flush()
    body, _ = render(node)
    assert b"channel-" not in body
    few = len(body.splitlines())
    for number in range(50, 100):
        await join(node, f"channel-{number}")
    assert len(render(node)[0].splitlines()) == few
    await node.tasks.aclose()


@on_loop
async def test_render_shows_the_hub_as_it_is() -> None:
    node = Node(MemoryBroker())
    await node.hub.open()
    slow = await join(node, "a", writable=False)
    await join(node, "a")
    await join(node, "b")
    for channel in "abaa":
        await node.broker.append(Draft(channel, b"1"))
        node.hub.flush()
    seen = samples(node)
    assert seen["tellwire_channels"] == 2
    assert seen["tellwire_subscriptions"] == 3
    assert seen["tellwire_tail_bytes"] == node.hub.tails.size > 0
    assert (seen["tellwire_readers_lagging"], seen["tellwire_reader_lag_max"]) == (1, 4)
    assert seen["tellwire_log_seq"] == 4
    assert seen["tellwire_broker_history_bytes"] > 0
    slow.door.writable = True
    slow.advance()
    seen = samples(node)
    assert (seen["tellwire_readers_lagging"], seen["tellwire_reader_lag_max"]) == (0, 0)
    await node.tasks.aclose()


@on_loop
async def test_lag_is_measured_at_no_more_readers_than_asked() -> None:
    node = Node(MemoryBroker())
    await node.hub.open()
    for _ in range(100):
        await join(node, "a", writable=False)
    idle = Subscriber(node.hub, Sink(writable=True), lines(chunked=True), Who())
    node.hub.enter(idle)  # reads nothing, hence lags behind nothing
    await node.broker.append(Draft("a", b"1"))
    node.hub.flush()
    assert measure_lag(node.hub) == (100, 1)
    sampled = measure_lag(node.hub, most=10)
    assert 80 <= sampled.readers <= 120
    assert sampled.farthest == 1
    assert measure_lag(Node(MemoryBroker()).hub) == (0, 0)
    await node.tasks.aclose()


def test_brokers_tell_figures_of_their_own(tmp_path: Path) -> None:
    assert samples(Node(SqliteBroker(tmp_path / "log.db")))["tellwire_broker_queue_bytes"] == 0


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in panels(dashboard) for target in panel.get("targets", ())]
    return asked + [
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if "definition" in variable
    ]


def exposed(tmp_path: Path) -> set[str]:
    names: set[str] = set()
    for broker in (MemoryBroker(), SqliteBroker(tmp_path / "log.db")):
        node = Node(broker)
        busy(node)
        names |= {name.partition("{")[0] for name in samples(node)}
    return names


def test_dashboard_asks_only_for_what_is_exposed(tmp_path: Path) -> None:
    names = exposed(tmp_path)
    asked = {name for query in queries() for name in re.findall(r"\b(?:tellwire|process|python)_\w+", query)}
    assert len(asked) > 20
    assert asked - names == set()


def test_dashboard_shows_everything_that_is_counted(tmp_path: Path) -> None:
    text = " ".join(queries())
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed(tmp_path) if name.startswith("tellwire_")}
    assert {name for name in names if name not in text} == set()


def test_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    assert dashboard["id"] is None, "Grafana gives the id"
    for panel in panels(dashboard):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])


def test_monitoring_page_names_everything_that_is_exposed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed(tmp_path) if name.startswith("tellwire_")}
    assert {name for name in names if f"`{name}" not in page} == set()
    named = set(re.findall(r"`(tellwire_\w+)", page))
    assert {
        name for name in named if name not in names and re.sub(r"_(bucket|sum|count)$", "", name) not in names
    } == set()
