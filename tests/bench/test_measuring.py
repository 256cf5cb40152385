"""The benchmark's harness finds back what is known beforehand of a server, and finds it more than once."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ROOT

# The benchmark is a folder of scripts, not a package; what it imports lies beside it.
sys.path.append(str(ROOT / "bench"))
contenders: Any = importlib.import_module("contenders")
field: Any = importlib.import_module("field")
generator: Any = importlib.import_module("generator")
measuring: Any = importlib.import_module("measuring")
report: Any = importlib.import_module("report")
table: Any = importlib.import_module("table")

WITHIN = 0.05
DELAY_S = 4.0  # so that a machine that is busy with other tests is not taken for a part of it
LOAD_S = 4  # so that what stands still for a second or two does not move the median
BURN_S = 0.06  # beside which a message itself is next to nothing, also on a machine whose caches others use
HEADER = 4
"""Of a frame with 126 bytes (RFC 6455, section 5.2)."""

Server = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Return what starts a known server with the load generator beside it."""
    if shutil.which("gcc") is None:
        pytest.skip("the load generator is written in C: sudo apt-get install gcc libc6-dev")
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("the load generator and the server need a core each")
    cache = tmp_path_factory.mktemp("bench")
    generator.compile_c(cache)
    python = Path(sys.executable)
    bench = measuring.Bench(contenders.Places(cache, python, python, ""), measuring.QUICK, 100, lambda _: None)

    def start(talks: Any, talk: str, count: int, *, delay_s: float = 0.0, burn_s: float = 0.0) -> Any:
        script = str(Path(__file__).parent / "known_server.py")
        contender = contenders.Contender(
            "known", "", lambda _, port: [sys.executable, script, str(port), str(delay_s), str(burn_s)], talks
        )
        return measuring.Bed(bench, contender, talk, count=count)

    return start


PLAIN = {"fan": {"sub_path": "/sub", "pub_path": "/pub", "message": "{data}"}}


def test_known_delay_and_bytes_are_found_back(known: Server) -> None:
    with known(PLAIN, "fan", 5, delay_s=DELAY_S) as bed:
        figures = bed.open().fan(50, LOAD_S, warm=0.2, drain=30)
    assert figures["delivered"] == figures["expected"] == 5 * 50 * LOAD_S
    assert figures["p50_us"] == pytest.approx(DELAY_S * 1e6, rel=WITHIN)
    assert figures["p50_us"] >= DELAY_S * 1e6
    with known(PLAIN, "fan", 5) as bed:
        figures = bed.open().fan(50, 0.5, warm=0, drain=30)
    assert figures["bytes_read"] == figures["delivered"] * (contenders.PAYLOAD_BYTES + HEADER) == 125 * 130


def test_known_cpu_time_is_found_back(known: Server) -> None:
    with known(PLAIN, "fan", 1, burn_s=BURN_S) as bed:
        # Without warming up: what is still to be done of it when counting begins would count.
        figures = bed.open().fan(10, 1, warm=0, drain=60)
    assert figures["delivered"] == 10
    assert figures["server_cpu_s"] / figures["delivered"] == pytest.approx(BURN_S, rel=WITHIN)


def test_centrifugo_is_spoken_to_as_documented(known: Server) -> None:
    with known(field.CENTRIFUGO.talks, "fan", 3) as bed:
        figures = bed.open().fan(50, 0.4, warm=0, drain=30)
    assert (figures["delivered"], figures["expected"], figures["closed"]) == (60, 60, 0)
    with known(field.CENTRIFUGO.talks, "acks", 0) as bed:
        figures = bed.open().ack(4, 2, warm=0)
    assert figures["acks"] > 0
    assert (figures["unanswered"], figures["closed"]) == (0, 0)


class Capable:
    """Holds every rate up to one."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.tried: list[tuple[float, float]] = []

    def fan(self, rate: float, secs: float) -> dict[str, Any]:
        """Tell whether it is held."""
        self.tried.append((rate, secs))
        missing = 0 if rate <= self.capacity else 1
        return {
            "rate": rate, "planned": 1, "sent": 1, "expected": 1, "delivered": 1 - missing, "p99_us": 1000.0,
            "gaps": 0, "errors": 0, "closed": 0, "trouble": "",
        }  # fmt: skip


def find(effort: Any, capacities: list[float]) -> tuple[list[float], list[Capable]]:
    """Find the highest rates of servers of which each can do a little more or less than the last."""
    made: list[Capable] = []

    def beds() -> AbstractContextManager[Capable]:
        made.append(Capable(capacities[len(made)]))
        return nullcontext(made[-1])

    found = measuring.highest_rates(effort, beds, 50, lambda _: None)
    return [figures["rate"] for figures in found], made


@pytest.fixture(params=["QUICK", "FULL"])
def effort(request: pytest.FixtureRequest) -> Any:
    return getattr(measuring, request.param)


@pytest.mark.parametrize("capacities", [[1000, 1000, 1100, 900, 1400, 300], [20, 20, 22, 18, 5, 60], [1e5] * 6])
def test_each_finding_is_of_its_own(effort: Any, capacities: list[float]) -> None:
    rates, made = find(effort, capacities)
    assert len(rates) == 5
    for rate, capacity, bed in zip(rates, capacities[1:], made[1:], strict=True):
        assert capacity / effort.closeness / 1.001 <= rate <= capacity
        assert bed.tried[-1] == (rate, effort.final_s)
        assert len(bed.tried) < 25
    # Even where every one can do the same, they are not five times one rate.
    assert len(set(rates)) == 5


def test_full_effort_holds_each_for_ten_seconds() -> None:
    assert (measuring.FULL.final_s, measuring.FULL.runs) == (10, 5)
    assert measuring.QUICK.runs >= 5


def test_rate_that_never_holds_is_none(effort: Any) -> None:
    rates, made = find(effort, [0.0] * 6)
    assert rates == []
    assert len(made) == 1, "what no search finds is not looked for again"


def test_spread_and_load_stand_in_the_table() -> None:
    runs = [
        {
            "rate": float(rate), "own_cpu_share": share, "server_queued_share": 0.0, "own_queued_share": 0.0,
            "closed": 0, "trouble": "",
        }
        for rate, share in [(90, 0.5), (100, 0.5), (110, 0.5), (105, 0.5), (120, 0.95)]
    ]  # fmt: skip
    entry = measuring.fill(measuring.Entry("one", "none"), runs, {table.MESSAGES: lambda run: run["rate"]})
    assert entry.figures[table.MESSAGES] == {"median": 105, "min": 90, "max": 120, "runs": 5}
    assert (entry.load_share, entry.load_limit) == (0.95, 200)
    page = report.render(
        [table.Row("row", "Title", [entry])], {"date": "", "effort": "", "noise": "", "machine": {}}
    ).splitlines()
    (line,) = [line for line in page if line.startswith("| one |")]
    assert line == f"| one | 105 (90.0…120) | 95%, 200/s | {generator.BOTTLENECK} |"


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    entry = measuring.Entry("one", "none", {"a": measuring.spread([1.0, 2.0, 3.0])}, load_says="no load: a file's size")
    report.write_json(tmp_path / "latest.json", [table.Row("row", "Title", [entry], [], "today")], {})
    (row,) = report.read_rows(tmp_path / "latest.json").values()
    assert dataclasses.asdict(row.entries[0]) == dataclasses.asdict(entry)
