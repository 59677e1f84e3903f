"""Leader election in virtual time, so that hours pass immediately and reproducibly."""

import asyncio
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from poiesis_kube.errors import Refused, Unreachable
from poiesis_tctl.config import LeaseTimes
from poiesis_tctl.lease import Elector, LeaderTaskStuck

TIMES = LeaseTimes(lease=15, renew=10, retry=2)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that moves its clock to the next timer instead of waiting."""

    def __init__(self) -> None:
        super().__init__(_NoWait(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _NoWait(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "all tasks wait forever"
        events = super().select(0)
        if not events:
            self._loop.now += timeout
        return events


def virtual(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(story())


def now() -> float:
    return asyncio.get_running_loop().time()


class Leases:
    """One Lease. `fault(who)` decides what happens to a call.

    None, an HTTP status (0: unreachable), "hang", "lost" (it is carried out, but there is no response), or
    seconds of delay.
    """

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.writes: list[tuple[float, str]] = []
        self.fault: Callable[[str], Any] = lambda _: None

    def of(self, who: str) -> "Client":
        return Client(self, who)

    def write(self, lease: Any, who: str) -> dict[str, Any]:
        self.version += 1
        metadata = {**lease["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**lease, "metadata": metadata}
        self.writes.append((now(), who))
        return self.lease


class Client:
    def __init__(self, leases: Leases, who: str) -> None:
        self._leases = leases
        self._who = who

    async def _call(self, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        fault = self._leases.fault(self._who)
        if fault == "hang":
            await asyncio.Event().wait()
        if isinstance(fault, int):
            raise Refused(fault, "Fault", "ordered") if fault else Unreachable("ordered")
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        answer = action()
        if fault == "lost":
            await asyncio.Event().wait()
        return answer

    async def get_lease(self, name: str) -> dict[str, Any]:
        def action() -> dict[str, Any]:
            if self._leases.lease is None:
                raise Refused(404, "NotFound", name)
            return self._leases.lease

        return await self._call(action)

    async def create_lease(self, lease: Any) -> dict[str, Any]:
        def action() -> dict[str, Any]:
            if self._leases.lease is not None:
                raise Refused(409, "AlreadyExists", "lease")
            return self._leases.write(lease, self._who)

        return await self._call(action)

    async def replace_lease(self, lease: Any) -> dict[str, Any]:
        def action() -> dict[str, Any]:
            if self._leases.lease is None:
                raise Refused(404, "NotFound", "lease")
            if lease["metadata"]["resourceVersion"] != self._leases.lease["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "lease")
            return self._leases.write(lease, self._who)

        return await self._call(action)


class Candidate:
    """An elector whose work records when it leads."""

    def __init__(self, leases: Leases, who: str, terms: list[tuple[str, float, float]]) -> None:
        self.who = who
        self.elector = Elector(leases.of(who), name="tctl", identity=who, times=TIMES)
        self.stop = asyncio.Event()
        self.fail = asyncio.Event()
        self._terms = terms
        self.task = asyncio.create_task(self.elector.run(self.work, self.stop))

    async def work(self) -> None:
        since = now()
        try:
            await self.fail.wait()
            raise RuntimeError("the work died")
        finally:
            self._terms.append((self.who, since, now()))

    async def end(self) -> None:
        self.stop.set()
        await self.task


async def until(true: Callable[[], bool], seconds: float = 100.0) -> float:
    """Return the time that the run took."""
    since = now()
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - it is the clock that is waited for
            await asyncio.sleep(0.1)
    return now() - since


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def terms() -> list[tuple[str, float, float]]:
    return []


def holder(leases: Leases) -> str:
    assert leases.lease is not None
    return leases.lease["spec"]["holderIdentity"]


def test_first_candidate_creates_and_renews_the_lease(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        await asyncio.sleep(100)
        assert a.elector.leading
        assert a.elector.is_alive()
        assert a.elector.is_connected()
        spec = leases.lease["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (
            "a",
            15,
            1,
        )
        assert len(leases.writes) == pytest.approx(51, abs=2)
        await a.end()

    virtual(story)


def test_released_lease_is_taken_immediately(leases, terms):
    async def story() -> None:
        a, b = Candidate(leases, "a", terms), Candidate(leases, "b", terms)
        await until(lambda: a.elector.leading or b.elector.leading)
        first, second = (a, b) if a.elector.leading else (b, a)
        await asyncio.sleep(60)
        assert first.elector.leading
        assert not second.elector.leading
        await first.end()
        assert holder(leases) == ""
        assert await until(lambda: second.elector.leading) < 2.5
        await second.end()

    virtual(story)


def test_vanished_leader_is_replaced(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        b = Candidate(leases, "b", terms)
        await asyncio.sleep(30)
        leases.fault = lambda who: "hang" if who == "a" else None  # killed: it sends nothing more
        a.task.cancel()
        with suppress(asyncio.CancelledError):
            await a.task
        assert 13 <= await until(lambda: b.elector.leading) <= 18
        await b.end()

    virtual(story)


@pytest.mark.parametrize("fault", ["hang", "lost", 500, 0])
def test_leader_stops_before_another_can_lead(leases, terms, fault):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        b = Candidate(leases, "b", terms)
        await asyncio.sleep(30)
        last = leases.writes[-1][0]
        leases.fault = lambda who: fault if who == "a" else None
        await until(lambda: b.elector.leading)
        (_, _, stopped) = terms[0]
        if fault != "lost":  # else its renewals do arrive
            assert stopped <= last + TIMES.renew + 0.01
        assert stopped < now()
        await b.end()
        leases.fault = lambda _: None
        await until(lambda: a.elector.leading)
        await a.end()

    virtual(story)


def test_failed_work_ends_leadership(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        b = Candidate(leases, "b", terms)
        await asyncio.sleep(10)
        a.fail.set()
        assert await until(lambda: not a.elector.leading) < 0.2
        assert holder(leases) in {"", "b"}
        await until(lambda: b.elector.leading, 30)
        await asyncio.gather(a.end(), b.end())

    virtual(story)


def test_stuck_work_keeps_the_lease(leases):
    async def story() -> None:
        stop, release = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await release.wait()

        elector = Elector(leases.of("a"), name="tctl", identity="a", times=TIMES)
        task = asyncio.create_task(elector.run(stubborn, stop))
        await until(lambda: elector.leading)
        stop.set()
        with pytest.raises(LeaderTaskStuck):
            await task
        assert holder(leases) == "a"
        release.set()

    virtual(story)


def test_restarted_candidate_takes_its_own_lease(leases, terms):
    """A restarted container has the Pod's name, too."""

    async def story() -> None:
        leases.write({"metadata": {"name": "tctl"}, "spec": {"holderIdentity": "a"}}, "a")
        a = Candidate(leases, "a", terms)
        assert await until(lambda: a.elector.leading) < 0.2
        await a.end()

    virtual(story)


def test_conflict_with_another_holder_ends_leadership(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        leases.write({**leases.lease, "spec": {**leases.lease["spec"], "holderIdentity": "z"}}, "z")
        assert await until(lambda: not a.elector.leading) < 2.5
        await asyncio.sleep(10)
        assert not a.elector.leading
        assert await until(lambda: a.elector.leading) < 18  # z never renews
        await a.end()

    virtual(story)


def test_foreign_edit_keeps_leadership(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        leases.write({**leases.lease, "metadata": {"name": "tctl", "labels": {"x": "y"}}}, "stranger")
        await asyncio.sleep(60)
        assert a.elector.leading
        assert len(terms) == 0
        await a.end()

    virtual(story)


def test_deleted_lease_ends_leadership(leases, terms):
    async def story() -> None:
        a = Candidate(leases, "a", terms)
        await until(lambda: a.elector.leading)
        leases.lease = None
        assert await until(lambda: not a.elector.leading) < 2.5
        await until(lambda: a.elector.leading)
        await a.end()

    virtual(story)


def test_connection_and_liveness_are_independent(leases, terms):
    async def story() -> None:
        leases.fault = lambda _: 500
        a = Candidate(leases, "a", terms)
        await asyncio.sleep(60)
        assert a.elector.is_alive()
        assert not a.elector.is_connected()
        await a.end()

    virtual(story)


@pytest.mark.parametrize("seed", range(30))
def test_never_two_leaders_with_any_faults(leases, terms, seed):
    dice = random.Random(seed)  # noqa: S311

    def fault(who: str) -> Any:
        return dice.choices([None, dice.uniform(0, 6), 500, 409, 0, "hang", "lost"], [60, 20, 5, 3, 4, 5, 3])[
            0
        ]

    async def story() -> None:
        leases.fault = fault
        candidates = [Candidate(leases, who, terms) for who in "abc"]
        for _ in range(20):
            await asyncio.sleep(dice.uniform(10, 60))
            assert sum(one.elector.leading for one in candidates) <= 1
            if dice.random() < 0.3:  # a rolling update
                victim = dice.randrange(3)
                await candidates[victim].end()
                candidates[victim] = Candidate(leases, f"{candidates[victim].who}+", terms)
        await asyncio.gather(*(one.end() for one in candidates))
        in_order = sorted(terms, key=lambda term: term[1])
        for (_, _, ended), (_, began, _) in itertools.pairwise(in_order):
            assert ended <= began
        assert sum(ended - began for _, began, ended in terms) > now() / 2

    virtual(story)
