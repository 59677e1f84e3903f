import pytest

from poiesis_models.backoff import Backoff

HALF = Backoff(first=1, longest=60)
FULL = Backoff(first=0.5, longest=10, jitter=1)
NONE = Backoff(first=2, longest=5, jitter=0)


@pytest.mark.parametrize(
    ("backoff", "failures", "chance", "seconds"),
    [
        (HALF, 1, 1, 1),
        (HALF, 2, 1, 2),
        (HALF, 3, 1, 4),
        (HALF, 7, 1, 60),
        (HALF, 10**6, 1, 60),
        (HALF, 1, 0, 0.5),
        (HALF, 2, 0.5, 1.5),
        (HALF, 7, 0, 30),
        (HALF, 0, 1, 1),
        (FULL, 1, 0, 0),
        (FULL, 2, 0.5, 0.5),
        (FULL, 9, 1, 10),
        (NONE, 1, 0, 2),
        (NONE, 2, 0.3, 4),
        (NONE, 3, 1, 5),
    ],
)
def test_delays_double_up_to_the_limit(backoff, failures, chance, seconds):
    assert backoff.seconds(failures, chance) == seconds


def test_delay_is_random_within_the_jitter():
    delays = [HALF.delay(3) for _ in range(200)]
    assert min(delays) >= 2
    assert max(delays) < 4
    assert max(delays) - min(delays) > 1
