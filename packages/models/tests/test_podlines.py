import pytest

from poiesis_models.podlines import LINE_CHARACTERS, StatusLine, status_lines
from poiesis_models.podstatus import ContainerEnd, ContainerWait
from poiesis_models.runfiles import ExitRecord

RECORD = ExitRecord(exit_code=3, signal=0, oom=False, term=False, start_ns=1, end_ns=2)


def end(reason: str, message: str = "", record: ExitRecord | None = None, name: str = "executor-0"):
    return ContainerEnd(name=name, exit_code=1, reason=reason, message=message, record=record)


@pytest.mark.parametrize(
    ("reason", "message", "key", "text"),
    [
        ("ErrImagePull", "not found", "waiting-pull", "executor-0: ErrImagePull: not found"),
        ("ImagePullBackOff", " ", "waiting-pull", "executor-0: ImagePullBackOff"),
        ("CreateContainerError", "a\0b", "waiting-CreateContainerError", None),
    ],
)
def test_wait_has_one_line_per_kind(reason, message, key, text):
    (line,) = status_lines([ContainerWait(name="executor-0", reason=reason, message=message)], [])
    assert line.key == f"executor-0/{key}"
    assert line.message == (text or "executor-0: CreateContainerError: a\ufffdb")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (end("StartError", "no such directory"), "executor-0: StartError: no such directory"),
        (end("OOMKilled", "{}", RECORD), "executor-0: OOMKilled"),
    ],
)
def test_end_with_a_reason_has_a_line(found, message):
    assert list(status_lines([], [found])) == [StatusLine(key=f"executor-0/{found.reason}", message=message)]


@pytest.mark.parametrize("found", [end("Completed"), end("Error", "x"), end(""), end("Error", name="trec")])
def test_other_ends_have_no_line(found):
    assert list(status_lines([], [found])) == []


def test_recorder_has_no_line():
    wait = ContainerWait(name="trec", reason="ErrImagePull", message="")
    assert list(status_lines([wait], [end("OOMKilled", name="trec")])) == []


def test_long_messages_are_shortened():
    (line,) = status_lines([], [end("StartError", "x" * 5000)])
    assert len(line.message) == LINE_CHARACTERS
