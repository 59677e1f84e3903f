import signal
import sys
import threading
from types import FrameType

import pytest

from poiesis_transfer import pool
from poiesis_transfer.errors import Permanent, Retryable
from poiesis_transfer.pool import for_each

SECONDS = 60  # until a wait that does not end fails the test


def test_all_items_run_with_bounded_concurrency():
    seen: list[int] = []
    meeting = threading.Barrier(5, timeout=SECONDS)
    running = threading.Semaphore(5)

    def work(number: int) -> None:
        assert running.acquire(blocking=False)
        meeting.wait()
        seen.append(number)
        running.release()

    for_each(range(100), work, concurrency=5)
    assert sorted(seen) == list(range(100))


def test_a_failure_cancels_the_rest_and_interrupts():
    begun, woken = threading.Event(), threading.Event()
    ended: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(SECONDS)
            raise Permanent("zero")
        begun.set()
        assert woken.wait(SECONDS)
        pool.check()
        ended.append(number)

    with pytest.raises(Permanent, match="zero"):
        for_each(range(10), work, concurrency=2, interrupt=woken.set)
    assert ended == []


def test_a_failure_ends_waits_of_inner_groups():
    begun = threading.Event()

    def inner(number: int) -> None:
        begun.set()
        pool.wait(SECONDS * 100)

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(SECONDS)
            raise Permanent("outer")
        for_each(range(3), inner, concurrency=3)

    with pytest.raises(Permanent, match="outer"):
        for_each(range(2), work, concurrency=2)


def test_a_failed_inner_group_spares_the_outer():
    done: list[int] = []

    def inner(number: int) -> None:
        raise Retryable("inner")

    def work(number: int) -> None:
        with pytest.raises(Retryable, match="inner"):
            for_each(range(3), inner)
        pool.check()
        done.append(number)

    for_each(range(4), work, concurrency=2)
    assert sorted(done) == [0, 1, 2, 3]


def test_clean_up_runs_after_a_failure():
    cleaned = threading.Event()
    begun = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(SECONDS)
            raise Permanent("zero")
        try:
            begun.set()
            pool.wait(SECONDS * 100)
        finally:
            with pool.shielded():
                pool.check()
            cleaned.set()

    with pytest.raises(Permanent):
        for_each(range(2), work, concurrency=2)
    assert cleaned.is_set()


def test_a_permanent_failure_is_raised_first():
    meeting = threading.Barrier(3, timeout=SECONDS)

    def work(failure: Exception) -> None:
        meeting.wait()
        raise failure

    with pytest.raises(Permanent):
        for_each([Retryable("a"), Permanent("b"), Retryable("c")], work, concurrency=3)


def test_what_the_source_raises_is_raised():
    def source():
        yield 1
        raise Permanent("listing")

    with pytest.raises(Permanent, match="listing"):
        for_each(source(), lambda _: None)


class _Signalled(BaseException):
    """What the handler of the filers raises."""


def test_a_missed_wake_up_delays_no_signal():
    ended: list[str] = []

    def work(number: int) -> None:
        while not waits_for_hands(sys._current_frames()[main]):
            pool.wait(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # as if it came right before the sleep
        try:
            pool.wait(SECONDS)
        except pool.Cancelled:
            ended.append("stopped")

    def waits_for_hands(frame: FrameType | None) -> bool:
        return frame is not None and (
            frame.f_code is pool._Group.wait.__code__ or waits_for_hands(frame.f_back)
        )

    def handle(*_: object) -> None:
        raise _Signalled

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(_Signalled):
            for_each([1], work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == ["stopped"]
