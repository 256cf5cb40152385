from __future__ import annotations

from tellwire.webhooks.breaker import FAILURES_MAX, OPEN_FIRST_S, OPEN_MAX_S, Breaker, Permit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(breaker: Breaker) -> Permit:
    permit = breaker.admit()
    assert permit is not None
    return permit


def opened(clock: Clock, jitter: float = 1.0) -> Breaker:
    breaker = Breaker(clock, lambda: jitter)
    for _ in range(FAILURES_MAX):
        breaker.failed(admitted(breaker))
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(Clock(), lambda: 1.0)
    for _ in range(3):
        for _ in range(FAILURES_MAX - 1):
            breaker.failed(admitted(breaker))
        assert not breaker.is_open
        breaker.succeeded()
    for _ in range(FAILURES_MAX):
        breaker.failed(admitted(breaker))
    assert breaker.is_open
    assert breaker.admit() is None


def test_one_probe_is_let_through_after_the_delay() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.wait_s() == OPEN_FIRST_S
    clock.now = OPEN_FIRST_S - 0.001
    assert breaker.admit() is None
    clock.now = OPEN_FIRST_S
    assert breaker.wait_s() == 0
    assert admitted(breaker).probe
    assert breaker.admit() is None, "one at a time"
    assert breaker.wait_s() > 0
    breaker.succeeded()
    assert not breaker.is_open
    assert not admitted(breaker).probe


def test_each_failed_probe_doubles_the_delay_up_to_a_bound() -> None:
    clock = Clock()
    breaker = opened(clock)
    delays = []
    for _ in range(40):
        delays.append(breaker.wait_s())
        clock.now += breaker.wait_s()
        breaker.failed(admitted(breaker))
    assert delays[:5] == [1, 2, 4, 8, 16]
    assert set(delays[5:]) == {OPEN_MAX_S}


def test_the_delay_is_short_again_after_a_success() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += breaker.wait_s()
    breaker.failed(admitted(breaker))
    clock.now += breaker.wait_s()
    admitted(breaker)
    breaker.succeeded()
    for _ in range(FAILURES_MAX):
        breaker.failed(admitted(breaker))
    assert breaker.wait_s() == OPEN_FIRST_S


def test_jitter_shortens_the_delay_by_up_to_half() -> None:
    assert [opened(Clock(), jitter).wait_s() for jitter in (0.0, 0.5, 1.0)] == [0.5, 0.75, 1.0]


def test_failures_under_way_when_it_opens_do_not_lengthen_the_delay() -> None:
    clock = Clock()
    breaker = Breaker(clock, lambda: 1.0)
    permits = [admitted(breaker) for _ in range(100)]
    for permit in permits:
        breaker.failed(permit)
        clock.now += 0.001
    clock.now = OPEN_FIRST_S + FAILURES_MAX * 0.001
    assert admitted(breaker).probe


def test_a_probe_that_is_given_up_makes_way_for_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_FIRST_S
    breaker.given_up(admitted(breaker))
    assert admitted(breaker).probe


def test_what_nobody_waited_for_counts_neither_way() -> None:
    breaker = Breaker(Clock(), lambda: 1.0)
    for _ in range(FAILURES_MAX - 1):
        breaker.failed(admitted(breaker))
    for _ in range(10):
        breaker.given_up(admitted(breaker))
    assert not breaker.is_open
    breaker.failed(admitted(breaker))
    assert breaker.is_open


def test_a_late_answer_closes_it_while_a_probe_is_under_way() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_FIRST_S
    probe = admitted(breaker)
    breaker.succeeded()  # of one that was under way when it opened
    assert not breaker.is_open
    breaker.failed(probe)
    assert not breaker.is_open, "one failure after an answer"
