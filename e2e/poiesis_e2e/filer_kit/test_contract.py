"""Every filer starts and ends according to the contract."""

import pytest

from poiesis_e2e.filer_kit.container import Pod

pytestmark = pytest.mark.integration
NOTHING = {"version": 1, "task": "kit", "inputs": [], "outputs": []}


def test_empty_work_list_succeeds(pod: Pod) -> None:
    pod.work(NOTHING)
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")


def test_unknown_version_is_a_permanent_error(pod: Pod) -> None:
    pod.work(NOTHING | {"version": 2})
    ended = pod.run()
    assert ended.exit_code == 65
    assert len(ended.of_kind("error")) == 1


def test_unknown_fields_are_ignored(pod: Pod) -> None:
    pod.work(NOTHING | {"later": {"x": [1]}})
    assert pod.run().exit_code == 0
