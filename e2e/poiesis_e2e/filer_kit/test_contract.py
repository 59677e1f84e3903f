"""What holds for every filer: how it starts and ends."""

import pytest

from poiesis_e2e.filer_kit.container import Pod

pytestmark = pytest.mark.integration
NOTHING = {"version": 1, "task": "kit", "inputs": [], "outputs": []}


def test_nothing_to_do_is_done(pod: Pod) -> None:
    pod.work(NOTHING)
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")


def test_another_version_is_refused_for_good(pod: Pod) -> None:
    pod.work(NOTHING | {"version": 2})
    ended = pod.run()
    assert ended.exit_code == 65
    assert len(ended.told("error")) == 1


def test_fields_it_does_not_know_are_ignored(pod: Pod) -> None:
    pod.work(NOTHING | {"later": {"x": [1]}})
    assert pod.run().exit_code == 0
