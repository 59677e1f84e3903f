import pytest

from poiesis_transfer.errors import Permanent, Retryable
from poiesis_transfer.retry import Retry

QUICK = Retry(attempts=4, first_seconds=0.001)


class Flaky:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def test_a_passing_failure_is_tried_again():
    attempt = Flaky(Retryable("a"), Retryable("b"), Retryable("c"))
    assert (QUICK.call(attempt), attempt.calls) == ("done", 4)


def test_the_last_failure_is_raised():
    attempt = Flaky(*[Retryable(str(number)) for number in range(9)])
    with pytest.raises(Retryable, match="3"):
        QUICK.call(attempt)
    assert attempt.calls == 4


def test_a_permanent_failure_is_raised_at_once():
    attempt = Flaky(Permanent("no"))
    with pytest.raises(Permanent):
        QUICK.call(attempt)
    assert attempt.calls == 1


@pytest.mark.parametrize(
    ("count", "retry_after", "low", "high"),
    [(0, None, 0, 1), (2, None, 0, 4), (60, None, 0, 10), (0, 5.0, 5, 6), (0, 3600.0, 10, 11)],
)
def test_delays_grow_to_a_bound(count: int, retry_after: float | None, low: float, high: float):
    delay = Retry(first_seconds=1, longest_seconds=10).delay(count, retry_after)
    assert low <= delay <= high


def test_an_attempt_that_gets_further_does_not_count():
    came = 0

    def attempt() -> str:
        nonlocal came
        came += 1
        if came < 50:
            raise Retryable("cut again")
        return "whole"

    assert QUICK.call(attempt, so_far=lambda: came) == "whole"


def test_attempts_that_get_no_further_do():
    attempt = Flaky(*[Retryable(str(number)) for number in range(9)])
    with pytest.raises(Retryable, match="3"):
        QUICK.call(attempt, so_far=lambda: 7)
    assert attempt.calls == 4
