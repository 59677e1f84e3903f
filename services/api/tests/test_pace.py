"""How the limit of concurrent submissions follows the answers of the API server."""

import pytest

from poiesis_api.config import Queue
from poiesis_api.pace import START, Pace, Sign, sign_of
from poiesis_kube.client import Answer

QUICK = Answer(seconds=0.02, status=201)
BUSY = Answer(seconds=0.02, status=429)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(clock=None, *, least=1, most=32):
    return Pace(clock or Clock(), least=least, most=most, slow_seconds=1.0)


def filled(made):
    """Lease until the pace is used."""
    while (count := made.to_lease()) > 0:
        for _ in range(count):
            made.begin()
    return made


@pytest.mark.parametrize(
    ("status", "seconds", "expected"),
    [
        (200, 0.02, Sign.GROW),
        (201, 0.49, Sign.GROW),
        (201, 0.5, Sign.KEEP),
        (201, 0.99, Sign.KEEP),
        (201, 1.0, Sign.SHRINK),
        (404, 0.02, Sign.KEEP),
        (403, 0.02, Sign.KEEP),
        (409, 1.5, Sign.SHRINK),
        (429, 0.01, Sign.SHRINK),
        (500, 0.01, Sign.SHRINK),
        (503, 0.01, Sign.SHRINK),
        (None, 10.0, Sign.SHRINK),
        (None, 0.01, Sign.SHRINK),
    ],
)
def test_sign_of_an_answer(status, seconds, expected):
    assert sign_of(Answer(seconds=seconds, status=status), slow_seconds=1.0) is expected


@pytest.mark.parametrize(("least", "most", "expected"), [(1, 32, START), (1, 3, 3), (12, 32, 12), (5, 5, 5)])
def test_first_limit_is_within_the_bounds(least, most, expected):
    assert pace(least=least, most=most).limit == expected


def test_quick_answers_raise_the_limit_by_one_per_round():
    made = filled(pace())
    for _ in range(START + 1):
        made.observe(QUICK)
    assert made.limit == START + 1


def test_limit_stays_within_its_bounds():
    clock = Clock()
    made = filled(pace(clock, least=2, most=10))
    for _ in range(500):
        made.observe(QUICK)
    assert made.limit == 10
    for _ in range(500):
        clock.now += 1
        made.observe(BUSY)
    assert made.limit == 2


def test_unused_limit_does_not_grow():
    made = pace()
    for _ in range(500):
        made.observe(QUICK)
    assert made.limit == START


def test_overload_counts_once_per_round_trip():
    clock = Clock()
    made = filled(pace(clock))
    for _ in range(20):
        made.observe(BUSY)
        clock.now += 0.001
    assert made.limit == 5, "the other requests were sent before the decrease"
    clock.now += 1
    made.observe(BUSY)
    assert made.limit == 3


def test_nothing_is_leased_until_retry_after_has_passed():
    clock = Clock()
    made = pace(clock)
    made.observe(Answer(seconds=0.01, status=429, retry_after=7))
    made.observe(Answer(seconds=0.01, status=503, retry_after=2))
    clock.now += 6.9
    assert made.to_lease() == 0
    clock.now += 0.2
    assert made.to_lease() == 5


def test_long_retry_after_is_bounded():
    clock = Clock()
    made = pace(clock)
    made.observe(Answer(seconds=0.01, status=429, retry_after=86400))
    clock.now += 60
    assert made.to_lease() > 0


def test_tasks_are_leased_several_at_a_time():
    made = filled(pace())
    leased = []
    for _ in range(START):
        made.end()
        leased.append(made.to_lease())
    assert leased == [0, 2, 3, 4, 5, 6, 7, 8]


def test_single_submission_is_leased_at_once():
    made = filled(pace(most=1))
    made.end()
    assert made.to_lease() == 1


@pytest.mark.parametrize("capacity", [6, 20, 45])
def test_replicas_converge_to_equal_shares(capacity):
    """Two replicas share a server that answers slowly above its capacity; one of them began alone."""
    clock = Clock()
    first, second = pace(clock), pace(clock)
    limits = []
    for number in range(1000):
        replicas = [first] if number < 100 else [first, second]
        load = sum(one.limit for one in replicas)
        answer = Answer(seconds=1.5 if load > capacity else 0.02, status=201)
        for replica in map(filled, replicas):
            for _ in range(replica.limit):
                replica.observe(answer)
        clock.now += 2.0
        limits.append((first.limit, second.limit))
    means = [sum(column) / 500 for column in zip(*limits[500:], strict=True)]
    assert min(means) / max(means) > 0.8
    assert capacity / 2 < sum(means) <= capacity + 2


def test_bounds_of_the_configuration_have_an_order():
    with pytest.raises(ValueError, match=r"minSubmissions must be at most maxSubmissions \(4\), got 5"):
        Queue.model_validate({"minSubmissions": 5, "maxSubmissions": 4})


def test_a_fixed_number_of_submissions_is_possible():
    queue = Queue.model_validate({"minSubmissions": 4, "maxSubmissions": 4})
    made = filled(Pace(Clock(), least=queue.min_submissions, most=queue.max_submissions, slow_seconds=1))
    made.observe(BUSY)
    assert made.limit == 4
