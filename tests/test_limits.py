"""Buckets and the turnstile against plain models, addresses behind proxies, the limit on open files."""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tellwire.errors import TooManyConnections
from tellwire.limits import Bucket, Buckets, Limits, Turnstile, Visit, address_key, client_address


class Hits:
    """Counts which bounds were met."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def limit_hit(self, name: str) -> None:
        self.seen[name] += 1


def test_every_name_of_a_hit_is_a_setting() -> None:
    hits = Hits()
    turnstile = Turnstile(
        Limits(connections_max=2, connections_per_address=1, connections_per_user=1, unauthenticated_max=1), hits
    )
    visit = turnstile.enter("10.0.0.1")
    with pytest.raises(TooManyConnections, match="this address"):
        turnstile.enter("10.0.0.1")
    other = turnstile.enter("10.0.0.2")
    with pytest.raises(TooManyConnections, match="this server"):
        turnstile.enter("10.0.0.3")
    turnstile.enter_user("ann")
    with pytest.raises(TooManyConnections, match="this user"):
        turnstile.enter_user("ann")
    visit.unknown(lambda _: None)
    other.unknown(lambda _: None)
    assert hits.seen == {
        "connections_per_address": 1,
        "connections_max": 1,
        "connections_per_user": 1,
        "unauthenticated_max": 1,
    }
    assert hits.seen.keys() <= {field.name for field in dataclasses.fields(Limits)}


# Buckets


@given(
    rate=st.floats(0.01, 1e6),
    burst_s=st.floats(0.01, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 3)), max_size=60),
    begin=st.floats(0, 1e7),
)
def test_bucket_never_lets_through_more_than_rate_and_burst(
    rate: float, burst_s: float, steps: list[tuple[float, float]], begin: float
) -> None:
    burst = rate * burst_s
    bucket = Bucket(rate, burst)
    now, taken = begin, 0.0
    for pause, share in steps:
        now += pause
        n = share * burst
        if bucket.take(n, now) == 0.0:
            # One take may go beyond the burst, and is paid off before the next.
            # A clock that shows months has no finer steps than some nanoseconds.
            assert taken + min(n, burst) <= (burst + rate * (now - begin)) * (1 + 1e-6) + rate * 1e-7
            taken += n


@given(
    rate=st.floats(0.01, 1e6),
    burst_s=st.floats(0.01, 1000),
    shares=st.lists(st.floats(0, 3), min_size=1, max_size=30),
    begin=st.floats(0, 1e7),
)
def test_bucket_lets_through_after_the_wait_it_asked_for(
    rate: float, burst_s: float, shares: list[float], begin: float
) -> None:
    bucket = Bucket(rate, rate * burst_s)
    now = begin
    for share in shares:
        n = share * rate * burst_s
        wait = bucket.take(n, now)
        if wait:
            assert wait > 0
            now += wait
            assert bucket.take(n, now) == 0.0


def test_bucket_refuses_without_taking() -> None:
    bucket = Bucket(10, 10)
    assert bucket.take(8, 0.0) == 0.0
    for _ in range(100):
        assert bucket.take(5, 0.0) == pytest.approx(0.3, abs=1e-5)
    assert bucket.take(2, 0.0) == 0.0


def test_bucket_outlives_a_clock_that_goes_back() -> None:
    bucket = Bucket(10, 10)
    assert bucket.take(10, 100.0) == 0.0
    assert bucket.take(1, 50.0) > 0
    assert bucket.take(1, 100.2) == 0.0


def test_more_than_the_burst_is_paid_off_afterwards() -> None:
    bucket = Bucket(10, 10)
    assert bucket.take(50, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(4.1, abs=1e-5)
    assert bucket.take(1, 4.2) == 0.0


@given(
    takes=st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 2), st.floats(0, 5)), max_size=80),
    keys_max=st.integers(1, 6),
)
def test_buckets_are_a_bucket_for_each_key_used_lately(takes: list[tuple[str, float, float]], keys_max: int) -> None:
    buckets = Buckets(1.0, 3.0, keys_max)
    model: dict[str, Bucket] = {}
    now = 0.0
    for key, pause, n in takes:
        now += pause
        bucket = model.pop(key, None) or Bucket(1.0, 3.0)
        model[key] = bucket
        if len(model) > keys_max:
            del model[next(iter(model))]
        assert buckets.take(key, n, now) == bucket.take(n, now)
        assert len(buckets) == len(model) <= keys_max


# The turnstile

BOUNDS = Limits(connections_max=6, connections_per_address=3, connections_per_user=2, unauthenticated_max=3)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", ""])


class TurnstileModel(RuleBasedStateMachine):
    """Every count is that of plain lists of who is in."""

    visits: Bundle[Visit] = Bundle("visits")
    gone: Bundle[Visit] = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.turnstile = Turnstile(BOUNDS)
        self.inside: dict[Visit, str] = {}
        self.unknown: list[Visit] = []
        self.users: list[str] = []

    @rule(target=visits, address=ADDRESSES)
    def enter(self, address: str) -> Visit | MultipleResults[Visit]:
        key = address_key(address)
        is_full = len(self.inside) == BOUNDS.connections_max or (
            key != "" and list(self.inside.values()).count(key) == BOUNDS.connections_per_address
        )
        try:
            visit = self.turnstile.enter(address)
        except TooManyConnections:
            assert is_full
            return multiple()
        assert not is_full
        self.inside[visit] = key
        return visit

    @rule(visit=visits, address=ADDRESSES)
    def move(self, visit: Visit, address: str) -> None:
        key = address_key(address)
        others = [other for mover, other in self.inside.items() if mover is not visit]
        is_full = key != "" and others.count(key) >= BOUNDS.connections_per_address
        try:
            visit.move(address)
        except TooManyConnections:
            assert is_full
            assert visit in self.inside
            return
        if visit in self.inside:
            assert not is_full
            self.inside[visit] = key

    @rule(visit=visits)
    def become_unknown(self, visit: Visit) -> None:
        evicted: list[Visit] = []
        visit.unknown(lambda exc: evicted.append(self.unknown[0]))
        if visit not in self.inside or visit in self.unknown:
            return
        self.unknown.append(visit)
        if len(self.unknown) > BOUNDS.unauthenticated_max:
            self.unknown.pop(0)

    @rule(visit=visits)
    def become_known(self, visit: Visit) -> None:
        visit.known()
        if visit in self.unknown:
            self.unknown.remove(visit)

    @rule(target=gone, visit=consumes(visits))
    def leave(self, visit: Visit) -> Visit:
        visit.leave()
        self.inside.pop(visit, None)
        if visit in self.unknown:
            self.unknown.remove(visit)
        return visit

    @rule(visit=gone)
    def do_anything_after_leaving(self, visit: Visit) -> None:
        visit.leave()
        visit.known()
        visit.move("10.0.0.9")
        visit.unknown(lambda exc: None)

    @rule(user=st.sampled_from(["ann", "bob"]))
    def enter_user(self, user: str) -> None:
        is_full = self.users.count(user) == BOUNDS.connections_per_user
        try:
            self.turnstile.enter_user(user)
        except TooManyConnections:
            assert is_full
            return
        assert not is_full
        self.users.append(user)

    @rule(user=st.sampled_from(["ann", "bob", "who never came"]))
    def leave_user(self, user: str) -> None:
        self.turnstile.leave_user(user)
        if user in self.users:
            self.users.remove(user)

    @invariant()
    def counts_are_the_lists(self) -> None:
        turnstile = self.turnstile
        assert turnstile.total == len(self.inside)
        assert turnstile.unauthenticated == len(self.unknown)
        assert turnstile._by_address == Counter(key for key in self.inside.values() if key)
        assert turnstile._by_user == Counter(self.users)


TestTurnstile = TurnstileModel.TestCase


def test_the_oldest_unknown_makes_way() -> None:
    turnstile = Turnstile(Limits(unauthenticated_max=2))
    evicted: list[tuple[int, str]] = []
    visits = [turnstile.enter("10.0.0.1") for _ in range(4)]
    for number, visit in enumerate(visits):
        visit.unknown(lambda exc, number=number: evicted.append((number, exc.code)))  # type: ignore[misc]
    assert evicted == [(0, "too_many_connections"), (1, "too_many_connections")]
    # Who was evicted is still a connection, until it has gone.
    assert (turnstile.total, turnstile.unauthenticated) == (4, 2)
    visits[0].leave()
    assert (turnstile.total, turnstile.unauthenticated) == (3, 2)


def test_evicting_may_leave_at_once() -> None:
    turnstile = Turnstile(Limits(unauthenticated_max=1))
    first, second = turnstile.enter("10.0.0.1"), turnstile.enter("10.0.0.1")
    first.unknown(lambda exc: first.leave())
    second.unknown(lambda exc: second.leave())
    assert (turnstile.total, turnstile.unauthenticated) == (1, 1)


# Addresses


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("a:socket", "a:socket"),
        ("a:so:cket", "a:so:cket"),
    ],
)
def test_addresses_are_counted_by_what_one_machine_has(address: str, key: str) -> None:
    assert address_key(address) == key


TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "fields", "address"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # the peer is no proxy of ours, whatever it says
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the left one the client wrote
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.1.1.1"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7", "10.1.1.1"], "198.51.100.7"),
        ("10.0.0.1", ["10.2.2.2,10.1.1.1"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.7,"], "10.0.0.1"),
        ("10.0.0.1", ["\xff\x00"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("fd00::1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("", ["198.51.100.7"], ""),
        ("10.0.0.1", [",".join(["10.1.1.1"] * 10_000)], "10.1.1.1"),
    ],
)
def test_client_address_is_what_trusted_proxies_say(peer: str, fields: list[str], address: str) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in fields)]
    assert client_address(peer, headers, TRUSTED) == address
    assert client_address(peer, headers, []) == peer


@given(st.lists(st.binary(max_size=60)), st.sampled_from(["10.0.0.1", "192.0.2.1"]))
def test_client_address_takes_any_garbage(fields: list[bytes], peer: str) -> None:
    address = client_address(peer, [(b"x-forwarded-for", value) for value in fields], TRUSTED)
    assert str(ipaddress.ip_address(address)) == address


@given(st.ip_addresses(), st.lists(st.ip_addresses(network="10.0.0.0/8")))
def test_client_address_is_found_behind_any_number_of_proxies(address: object, proxies: list[object]) -> None:
    value = ", ".join(map(str, ["203.0.113.1", address, *proxies[:20]])).encode()
    expected = str(address)
    parsed = ipaddress.ip_address(expected)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    if any(parsed in network for network in TRUSTED):
        return
    assert client_address("10.0.0.1", [(b"x-forwarded-for", value)], TRUSTED) == str(parsed)


# Open files

PROGRAM = """
import resource
from tellwire.limits import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_descriptor_limit({wanted}, {ports}), resource.getrlimit(resource.RLIMIT_NOFILE)[0], sep="|")
"""


def raised(soft: int, hard: int, wanted: int, ports: int = 1) -> tuple[str, int]:
    """Raise the limit in a process of its own; return what was said, and the limit then."""
    program = PROGRAM.format(soft=soft, hard=hard, wanted=wanted, ports=ports)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, limit = done.stdout.strip().split("|")
    return said, int(limit)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_limit_on_open_files_is_raised_to_what_is_allowed() -> None:
    assert raised(100, 1000, 500) == ("None", 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_too_few_open_files_are_told_with_what_to_do() -> None:
    said, limit = raised(100, 1000, 50_000)
    assert limit == 1000
    assert said == (
        "only 1000 files may be open, enough for about 800 connections, and connections_max is 50000; raise the limit "
        "to 50200 (ulimit -n 50200, or LimitNOFILE=50200 in a systemd unit), or lower connections_max to 800"
    )
    said, _ = raised(100, 1000, 50_000, ports=2)
    assert said.startswith("only 1000 files may be open, enough for about 400 connections on each port, and")
    assert "raise the limit to 100200 " in said
    assert said.endswith("or lower connections_max to 400")
