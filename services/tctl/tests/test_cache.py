"""The cache of objects by task, and what vanished from it."""

from uuid import UUID

from tctl_builders import RUNNING, TASK, pod

from poiesis_tctl.cache import Cache

KEY = str(TASK)


def test_newest_pod_is_current():
    cache = Cache()
    old, new = pod(name="old", uid="1"), pod(name="new", uid="2", created="2025-11-23T07:00:00Z")
    assert [cache.put(new), cache.put(old)] == [KEY, KEY]
    assert cache.current(KEY) is new
    assert cache.remove("old") == KEY
    assert (cache.current(KEY), cache.gone(KEY)) == (new, old)
    cache.forget_gone(KEY)
    assert cache.gone(KEY) is None


def test_recreated_pod_counts_as_vanished():
    cache = Cache()
    first, second = pod(uid="1"), pod(uid="2", version="2")
    cache.put(first)
    cache.put(second)
    assert (cache.current(KEY), cache.gone(KEY)) == (second, first)


def test_unchanged_object_is_not_reported():
    cache = Cache()
    assert [cache.put(pod()), cache.put(pod()), cache.put(pod({"trec": RUNNING}, version="2"))] == [
        KEY, None, KEY,
    ]  # fmt: skip


def test_deletion_of_an_unknown_object_is_reported():
    cache = Cache()
    assert cache.remove("x") is None
    assert cache.remove(pod()["metadata"]["name"], pod()) == KEY
    assert cache.gone(KEY) == pod()


def test_relabeled_pod_leaves_its_task():
    cache = Cache()
    cache.put(pod())
    other = UUID(int=1)
    assert cache.put(pod(task=other, version="2")) == str(other)
    assert list(cache.tasks()) == [str(other)]


# The queue
