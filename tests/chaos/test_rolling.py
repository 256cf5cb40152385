"""One node after the other is restarted under load: nothing is lost, and everybody has a slot of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.chaos.bystanders import Bystanders, Move
from tests.chaos.crowd import Crowd, check_nothing_is_missing
from tests.chaos.nodes import Nodes
from tests.chaos.seats import RawSeat
from tests.deploy.files import deployed
from tests.deploy.proxies import nginx_before, wanted
from tests.readers import PUSHED
from tests.redis_servers import needs_redis, redis_server
from tests.wires import At

pytestmark = needs_redis

FLOW = 10
EACH = 80
"""Bystanders of each node."""
BINS = 5


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes on a Redis that waits for no disk: one that is busy would bring together who goes and who comes."""
    with redis_server(tmp_path_factory.mktemp("redis")) as redis, closing(Nodes([redis.url] * 3, drain_s=2.0)) as three:
        yield three


def restart(nodes: Nodes, crowd: Crowd, between: Callable[[], None]) -> None:
    """Restart one node after the other, each when all readers are served."""
    for place, server in enumerate(nodes.servers):
        crowd.flow(FLOW)
        crowd.wait_until(lambda: all(seat.is_seated for seat in pushed(crowd)), "all are served")
        between()
        assert server.stop() == 0
        crowd.flow(FLOW, crowd.mouths[:2])  # the client's may have been the publisher's only node
        nodes.start_again(place)


def pushed(crowd: Crowd) -> list[RawSeat]:
    """Return the readers that stay connected, who are told when they shall go; pollers just ask again."""
    return [seat for seat in crowd.seats if isinstance(seat, RawSeat) and seat.kind in PUSHED]


def check_served_but_for_their_slots(crowd: Crowd) -> None:
    """Check that each was told to go whenever its connection ended, and that the first try elsewhere was a good one."""
    for seat in pushed(crowd):
        assert (seat.losses, seat.refusals) == (0, 0), (seat.name, seat.losses, seat.refusals, seat.closings)


def check_spread(moves: list[Move]) -> None:
    """Check that those of one node went evenly over its window: as they were told, and as they were served again.

    The bounds are wide, for a machine that is busy with other things: with five bins there are 20 % in each.
    """
    for times in (
        [move.sent_away_at + move.reconnect_in_ms / 1000 for move in moves],
        [move.served_at for move in moves],
    ):
        first, last = min(times), max(times)
        assert last > first, "all went at once"
        bins = Counter(min(int((at - first) / (last - first) * BINS), BINS - 1) for at in times)
        assert max(bins.values()) <= 0.6 * len(times), sorted(bins.items())


def test_rolling_restart_sends_everybody_away_in_a_slot_of_their_own(nodes: Nodes, channel: str) -> None:
    with Crowd(nodes.addresses, channel) as crowd, Bystanders(nodes.addresses, EACH, channel) as bystanders:
        restart(nodes, crowd, bystanders.settle)
        bystanders.settle()
        log = crowd.finish()
    check_nothing_is_missing(crowd, log)
    check_served_but_for_their_slots(crowd)
    assert bystanders.lost == []
    # Those of the first node were at the second when that went, and so on: more each time.
    for node in range(3):
        moves = [move for move in bystanders.moves if move.node == node]
        assert len(moves) == EACH * (node + 1)
        assert [move for move in moves if move.tries > 1] == [], "there was a node to go to"
        check_spread(moves)
    # Who goes late was served until then: it has news that those who went early had not.
    for node in range(3):
        had = sorted(closing.newest for seat in pushed(crowd) for closing in seat.closings if closing.node == node)
        assert len(had) >= 3
        assert had[0] < had[-1], "all had been left with the same"


@contextmanager
def nginx(folder: Path, nodes: Nodes) -> Iterator[At]:
    """Start nginx before the nodes, with the site of the compose file, which has no TLS."""
    servers = "".join(f"    server 127.0.0.1:{node.port} max_fails=0;\n" for node in nodes.addresses)
    text = deployed("compose.nginx.conf")
    before = "    server one:8000 max_fails=0;\n    server two:8000 max_fails=0;\n"
    assert before in text
    with nginx_before(wanted("nginx"), folder, text.replace(before, servers)) as port:
        yield At(port)


def test_rolling_restart_behind_nginx_is_a_reconnect_for_each(nodes: Nodes, channel: str, tmp_path: Path) -> None:
    with nginx(tmp_path, nodes) as proxy, Crowd([proxy], channel) as crowd:
        restart(nodes, crowd, lambda: None)
        log = crowd.finish()
    check_nothing_is_missing(crowd, log)
    check_served_but_for_their_slots(crowd)
    assert any(seat.closings for seat in pushed(crowd))
