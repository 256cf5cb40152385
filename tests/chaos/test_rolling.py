"""One node after the other is restarted under load: nothing is lost, and everybody has a slot of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.chaos.bystanders import Bystanders
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


def restart(nodes: Nodes, crowd: Crowd, bystanders: Bystanders | None = None) -> None:
    """Restart one node after the other, each when all readers are served by others than the one before."""
    for place, server in enumerate(nodes.servers):
        crowd.flow(FLOW)
        crowd.wait_until(lambda: all(seat.is_seated for seat in pushed(crowd)), "all are served")
        if bystanders is not None:
            bystanders.settle()
        assert server.stop() == 0
        if bystanders is not None:
            wait_until_left(place, crowd, bystanders)
        crowd.flow(FLOW, crowd.mouths[:2])  # the client's may have been the publisher's only node
        nodes.start_again(place)


def wait_until_left(place: int, crowd: Crowd, bystanders: Bystanders) -> None:
    """Wait until all have read that a node sent them away: who is late would go to the next when that goes, too."""
    crowd.wait_until(
        lambda: not bystanders.there[place] and all(seat.node != place for seat in pushed(crowd)), "all have left it"
    )


def pushed(crowd: Crowd) -> list[RawSeat]:
    """Return the readers that stay connected, who are told when they shall go; pollers just ask again."""
    return [seat for seat in crowd.seats if isinstance(seat, RawSeat) and seat.kind in PUSHED]


def check_served_but_for_their_slots(crowd: Crowd) -> None:
    """Check that each was told to go whenever its connection ended, and that the first try elsewhere was a good one."""
    for seat in pushed(crowd):
        assert (seat.losses, seat.refusals) == (0, 0), (seat.name, seat.losses, seat.refusals, seat.closings)


def spread(times: list[float]) -> list[int]:
    """Count how many are in each of equal parts of the time from the first to the last."""
    first, last = min(times), max(times)
    bins = Counter(min(int((at - first) / (last - first or 1) * BINS), BINS - 1) for at in times)
    return [bins[part] for part in range(BINS)]


def test_rolling_restart_sends_everybody_away_in_a_slot_of_their_own(nodes: Nodes, channel: str) -> None:
    with Crowd(nodes.addresses, channel) as crowd, Bystanders(nodes.addresses, EACH, channel) as bystanders:
        restart(nodes, crowd, bystanders)
        bystanders.settle()
        log = crowd.finish()
    check_nothing_is_missing(crowd, log)
    check_served_but_for_their_slots(crowd)
    assert bystanders.lost == []
    # Those of the first node were at the second when that went, and so on: more each time.
    spreads, news = [], []
    for node in range(3):
        moves = [move for move in bystanders.moves if move.node == node]
        assert len(moves) == EACH * (node + 1)
        assert [move for move in moves if move.tries > 1] == [], "there was a node to go to"
        # As they were told, and as they were served again.
        told = spread([move.sent_away_at + move.reconnect_in_ms / 1000 for move in moves])
        served = spread([move.served_at for move in moves])
        spreads.append(max(told + served) / len(moves))
        had = sorted(closing.newest for seat in pushed(crowd) for closing in seat.closings if closing.node == node)
        assert len(had) >= 3
        news.append(had[-1] - had[0])
    # For a machine that is busy with other things, which may take no notice while a node drains, the bounds are wide:
    # evenly there is a fifth in each part, and one node has to come near to it.
    assert min(spreads) <= 0.6, spreads
    # Who goes late was served until then: it has news that those who went early had not.
    assert max(news) > 0, "all had been left with the same"


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
        restart(nodes, crowd)
        log = crowd.finish()
    check_nothing_is_missing(crowd, log)
    check_served_but_for_their_slots(crowd)
    assert any(seat.closings for seat in pushed(crowd))
