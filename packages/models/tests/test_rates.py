import pytest

from poiesis_models.rates import TokenBuckets


def test_a_burst_is_followed_by_the_rate():
    buckets = TokenBuckets(per_second=2, burst=3, keys=10)
    assert [buckets.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", 100.5) == 0
    assert buckets.take("a", 100.5) == 0.5


def test_each_key_has_its_own_bucket():
    buckets = TokenBuckets(per_second=1, burst=1, keys=10)
    assert buckets.take("a", 0.0) == buckets.take("b", 0.0) == 0
    assert buckets.take("a", 0.0) == 1


def test_waiting_time_takes_no_token():
    buckets = TokenBuckets(per_second=1, burst=1, keys=10)
    assert buckets.wait("a", 0.0) == buckets.wait("a", 0.0) == buckets.take("a", 0.0) == 0
    assert buckets.wait("a", 0.25) == 0.75


def test_no_rate_is_no_limit():
    buckets = TokenBuckets(per_second=0, burst=0, keys=10)
    assert {buckets.take("a", 0.0) for _ in range(100)} == {0.0}


@pytest.mark.parametrize("keys", [1, 5])
def test_only_recent_keys_are_remembered(keys):
    buckets = TokenBuckets(per_second=1, burst=1, keys=keys)
    for number in range(keys):
        buckets.take(str(number), 0.0)
    assert buckets.take("0", 0.0) == 1
    buckets.take("another", 0.0)
    assert buckets.take("0", 0.0) == 0
