"""What Prometheus is told of a node, in its text format or OpenMetrics.

There are no labels of channels, users or clients: every label's values come from a table of our own. Whoever may name a
channel could else make as many time series as they like, in every Prometheus that looks here; who lags and which
channels are busy is answered by the admin API, which keeps nothing.

Each node is shown by a registry of its own, made for the one answer: several nodes can be in a process, and the
process may have metrics of its own, with which these are not mixed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from random import randrange
from typing import NamedTuple, get_args

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tellwire import __version__
from tellwire.counters import Counters, Histogram
from tellwire.errors import CloseCode, error_classes
from tellwire.hub import Hub
from tellwire.message import GapReason
from tellwire.node import Node
from tellwire.protocol.commands import COMMANDS

LOOKED_AT_MAX = 10_000
"""Readers whose lag is looked at for one answer; among more of them, evenly drawn ones stand for all."""

# A series that begins with its first event hides that event from rate(): what can be told beforehand begins at 0.
_GAPS = dict.fromkeys(get_args(GapReason), 0)
_REJECTS = dict.fromkeys(error_classes(), 0)
_CLOSES = dict.fromkeys(map(int, CloseCode), 0)
_COMMANDS = dict.fromkeys((str(command.__struct_config__.tag) for command in COMMANDS), 0)


class Lag(NamedTuple):
    """How many readers are behind, and how far at most, in places of the log."""

    readers: int
    farthest: int


def render(node: Node, accept: str = "", others: Mapping[int, bytes] | None = None) -> tuple[bytes, str]:
    """Return what ``/metrics`` answers, and its content type, by the ``Accept`` of whoever asks.

    `others` are those of the other workers of the same server (see `pack`), by their numbers. Whichever of them is
    asked, the answer has all of them, each with a label: a counter would else jump with the worker that answers.
    """
    registry = CollectorRegistry()
    if others is None:
        _register(node, registry)
    else:
        packed = {node.roster.title.worker: pack(node), **others}
        registry.register(_Together({worker: _unpack(data) for worker, data in sorted(packed.items())}))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _register(node: Node, registry: CollectorRegistry) -> None:
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)


class _Family(msgspec.Struct):
    """A metric on its way from one worker to another."""

    name: str
    says: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


_unpack = msgspec.msgpack.Decoder(list[_Family]).decode


def pack(node: Node) -> bytes:
    """Return all metrics of a node, for another worker to show."""
    registry = CollectorRegistry()
    _register(node, registry)
    return msgspec.msgpack.encode(
        [
            _Family(m.name, m.documentation, m.type, [(s.name, dict(s.labels), float(s.value)) for s in m.samples])
            for m in registry.collect()
        ]
    )


class _Together(Collector):
    """The metrics of several workers, told apart by a label."""

    def __init__(self, workers: Mapping[int, list[_Family]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for worker, families in self._workers.items():
            for family in families:
                metric = metrics.get(family.name)
                if metric is None:
                    metric = metrics[family.name] = Metric(family.name, family.says, family.kind)
                for name, labels, value in family.samples:
                    metric.add_sample(name, {"worker": str(worker), **labels}, value)
        yield from metrics.values()


def measure_lag(hub: Hub, most: int = LOOKED_AT_MAX) -> Lag:
    """Look at no more than `most` readers for those that are behind what was flushed."""
    step = -(-len(hub.subscribers) // most) or 1
    readers = farthest = 0
    for subscriber in islice(hub.subscribers, randrange(step), None, step):
        if subscriber.channels and not (subscriber.live and not subscriber.joining):
            lag = hub.flushed - subscriber.cursor.seq
            if lag > 0:
                readers += 1
                farthest = max(farthest, lag)
    return Lag(readers * step, farthest)


class NodeCollector(Collector):
    """Reads a node's figures at the moment they are asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node, counters = self._node, self._node.counters
        build = {"version": __version__, "python": platform.python_version(), "broker": type(node.broker).__name__}
        yield _labelled("tellwire_build_info", "What runs here; always 1.", build)
        yield GaugeMetricFamily("tellwire_ready", "1 while new connections are wanted.", float(node.ready))
        yield from _traffic(counters)
        yield from _connections(counters)
        yield from _refusals(counters)
        yield from _application(counters)
        yield from _hub(node.hub)
        for name, value in node.broker.figures().items():
            yield GaugeMetricFamily(f"tellwire_broker_{name}", "A figure of the broker's own, see its page.", value)


def _traffic(counters: Counters) -> Iterator[Metric]:
    yield _counter("tellwire_messages_published", "Messages acknowledged to publishers.", counters.published_messages)
    yield _counter("tellwire_published_bytes", "Data in them, as it was published.", counters.published_bytes)
    yield _counter("tellwire_publish_duplicates", "Publishes whose id was known already.", counters.duplicates)
    yield _histogram(
        "tellwire_publish_seconds", "From a publish's checks to its acknowledgement.", {(): counters.publish_s}
    )
    yield _counter("tellwire_messages_delivered", "Messages written, once per reader.", counters.delivered_messages)
    yield _counter("tellwire_delivered_bytes", "Bytes of frames written to readers.", counters.delivered_bytes)
    yield _histogram("tellwire_flush_messages", "Messages that went out together.", {(): counters.flush_messages})
    yield _histogram(
        "tellwire_deliver_lag_seconds",
        "From a message's time to its flush on this node, of the first one in each flush.",
        {(): counters.deliver_lag_s},
    )


def _connections(counters: Counters) -> Iterator[Metric]:
    yield _by("tellwire_connections", "Open connections.", "transport", counters.connections, GaugeMetricFamily)
    yield _by("tellwire_connections_opened", "Connections let in.", "transport", counters.connections_opened)
    yield _by(
        "tellwire_closes", "Connections closed by this node, by close code.", "code", {**_CLOSES, **counters.closes}
    )
    yield _by("tellwire_commands", "Commands carried out or refused.", "type", {**_COMMANDS, **counters.commands})


def _refusals(counters: Counters) -> Iterator[Metric]:
    yield _by("tellwire_rejects", "Errors sent to peers.", "code", {**_REJECTS, **counters.rejects})
    yield _by("tellwire_limit_hits", "Times that a bound was hit, by its setting.", "limit", counters.limits)
    yield _by("tellwire_gaps", "Gaps told to readers.", "reason", {**_GAPS, **counters.gaps})
    yield _counter("tellwire_fell_behind", "Times that a reader's socket was full at a flush.", counters.fell_behind)


def _application(counters: Counters) -> Iterator[Metric]:
    changes = {
        "enter": counters.presence_enters,
        "leave": counters.presence_leaves,
        "sweep": counters.presence_sweeps,
    }
    yield _by("tellwire_presence_changes", "Members that came, went, or whose lease ran out.", "change", changes)
    hooks = counters.hooks
    yield _histogram(
        "tellwire_hook_seconds",
        "How long the application took to answer.",
        {(name,): hook.seconds for name, hook in hooks.items()},
        ("hook",),
    )
    failures = {name: hook.failures for name, hook in hooks.items()}
    yield _by("tellwire_hook_failures", "Hooks that failed or took too long.", "hook", failures)


def _hub(hub: Hub) -> Iterator[Metric]:
    lag = measure_lag(hub)
    yield GaugeMetricFamily("tellwire_channels", "Channels that somebody reads on this node.", len(hub.tails))
    yield GaugeMetricFamily("tellwire_subscriptions", "Readings: each connection times its channels.", hub.readings)
    yield GaugeMetricFamily("tellwire_tail_bytes", "Newest messages and frames kept in memory.", hub.tails.size)
    yield GaugeMetricFamily("tellwire_readers_lagging", "Connections that are behind.", lag.readers)
    yield GaugeMetricFamily("tellwire_reader_lag_max", "The farthest behind, in places of the log.", lag.farthest)
    yield GaugeMetricFamily("tellwire_log_seq", "Newest place of the log that this node has.", hub.head)


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(name, says, value)


def _labelled(name: str, says: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _by(
    name: str,
    says: str,
    label: str,
    values: Mapping[str, int] | Mapping[int, int],
    kind: Callable[..., CounterMetricFamily | GaugeMetricFamily] = CounterMetricFamily,
) -> Metric:
    family = kind(name, says, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _histogram(
    name: str, says: str, series: Mapping[tuple[str, ...], Histogram], labels: Iterable[str] = ()
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, says, labels=list(labels))
    for values, histogram in series.items():
        buckets: list[tuple[str, float]] = []
        up_to = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            up_to += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), up_to))
        family.add_metric(list(values), buckets, histogram.total)
    return family
