"""The namespace of a new task by its creator's groups."""

import pytest

from poiesis_api.config import ConfigError, Recorder, RecorderFiles, TasksNamespaces
from poiesis_api.identity.caller import ANONYMOUS, Caller
from poiesis_api.namespaces import namespace_for
from poiesis_api.recorder_files import MOST_BYTES, recorder_postgres
from poiesis_api.taskpod import RecorderPostgres

TASKS = TasksNamespaces.model_validate(
    {
        "namespace": "tes-tasks",
        "namespaces": [
            {"name": "lab-a", "groups": ["a", "shared"]},
            {"name": "lab-b", "groups": ["b", "shared"]},
            {"name": "tes"},
        ],
    }
)


@pytest.mark.parametrize(
    ("groups", "namespace"),
    [
        (("a",), "lab-a"),
        (("b",), "lab-b"),
        (("b", "a"), "lab-a"),  # the order of the configuration, not of the groups
        (("c", "shared"), "lab-a"),
        (("c",), "tes-tasks"),
        ((), "tes-tasks"),
    ],
)
def test_first_entry_with_a_group_of_the_creator_is_used(groups, namespace):
    assert namespace_for(Caller(name="x", groups=groups), TASKS) == namespace


def test_without_configuration_tasks_run_in_the_apis_namespace():
    assert namespace_for(ANONYMOUS, TasksNamespaces()) is None


def with_files(config, **files):
    update = {"recorder": Recorder(transport="postgres"), "recorder_postgres": RecorderFiles(**files)}
    return config.model_copy(update=update)


def test_recorder_files_are_read(tmp_path, config):
    dsn, ca = tmp_path / "dsn", tmp_path / "ca.crt"
    dsn.write_text("postgresql://db\n")
    ca.write_text("PEM")
    found = recorder_postgres(with_files(config, dsn_file=str(dsn), ca_file=str(ca)))
    assert (found.dsn, found.ca) == ("postgresql://db", "PEM")
    assert "postgresql" not in repr(found)


def test_gateway_needs_no_recorder_files(config):
    assert recorder_postgres(config) == RecorderPostgres(dsn="")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff", b"x" * (MOST_BYTES + 1)])
def test_unusable_recorder_file_is_rejected_by_name(tmp_path, config, content):
    file = tmp_path / "dsn"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"recorderPostgres.dsnFile: .*{file}"):
        recorder_postgres(with_files(config, dsn_file=str(file)))
