"""Files that come from containers are read with suspicion."""

import json

import pytest

from poiesis_models.plan import MalformedPlan, PodPlan
from poiesis_models.runfiles import (
    LOG_MARK,
    ExitRecord,
    FilerProgress,
    FoundInput,
    MalformedFile,
    SentOutput,
    Started,
    log_text,
    parse_progress,
)
from poiesis_models.worklist import InputItem, MalformedWorkList, OutputItem, WorkList, waves

EXIT = {
    "exit_code": 7,
    "signal": 0,
    "oom": False,
    "term": False,
    "start_ns": 5,
    "end_ns": 9,
    "max_rss_kb": 1024,
    "user_us": 10,
    "sys_us": 20,
}


def test_exit_record_has_all_fields_of_the_helper():
    assert ExitRecord.parse(json.dumps(EXIT).encode()) == ExitRecord(
        exit_code=7,
        signal=0,
        oom=False,
        term=False,
        start_ns=5,
        end_ns=9,
        max_rss_kb=1024,
        user_us=10,
        sys_us=20,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 1000,
        json.dumps(EXIT | {"exit_code": 256}).encode(),
        json.dumps(EXIT | {"exit_code": -1}).encode(),
        json.dumps(EXIT | {"exit_code": "7"}).encode(),
        json.dumps(EXIT | {"exit_code": True}).encode(),
        json.dumps(EXIT | {"oom": 1}).encode(),
        json.dumps(EXIT | {"end_ns": 2**63}).encode(),
        json.dumps(EXIT | {"padding": "x" * 2000}).encode(),
    ],
)
def test_invalid_exit_json_is_malformed(data: bytes):
    with pytest.raises(MalformedFile):
        ExitRecord.parse(data)


@pytest.mark.parametrize(
    ("term", "code", "seen"),
    [(True, 0, 143), (True, 3, 3), (True, 137, 137), (False, 0, 0), (False, 143, 143)],
)
def test_exit_0_after_sigterm_is_not_success(term: bool, code: int, seen: int):
    record = ExitRecord.parse(json.dumps(EXIT | {"term": term, "exit_code": code}).encode())
    assert record.tes_exit_code == seen


def test_started_needs_a_time():
    assert Started.parse(b'{"start_ns": 12}') == Started(start_ns=12)
    with pytest.raises(MalformedFile, match="start_ns"):
        Started.parse(b"{}")


def test_progress_ignores_incomplete_last_line():
    data = (
        b'{"event":"progress","files":1,"bytes":10}\n'
        b'{"event":"output","url":"s3://b/a","path":"/a","size_bytes":3}\n'
        b'{"event":"from the future","x":1}\n'
        b'{"event":"input","path":"/in","type":"DIRECTORY"}\n'
        b'{"event":"warning","message":"nothing matched"}\n'
        b'{"event":"progress","files":2,"bytes":20}\n'
        b'{"event":"output","url":"s3://b/a","path":"/a","size_bytes":4}\n'
        b'{"event":"error","mess'
    )
    assert parse_progress(data) == FilerProgress(
        files=2,
        bytes=20,
        outputs=(SentOutput(url="s3://b/a", path="/a", size_bytes=4),),
        inputs=(FoundInput(path="/in", type="DIRECTORY"),),
        warnings=("nothing matched",),
        error=None,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[]",
        b'{"event":"output","url":1,"path":"/a","size_bytes":3}',
        b'{"event":"input","path":"/a","type":"LINK"}',
        b'{"event":"input","path":"/a"}',
    ],
)
def test_malformed_progress_line_is_rejected(line: bytes):
    with pytest.raises(MalformedFile):
        parse_progress(line + b"\n")


def test_file_name_not_utf8_is_sanitized():
    line = b'{"event":"output","url":"s3://b/\\udcff","path":"/o/a\\u0000","size_bytes":1}\n'
    assert parse_progress(line).outputs == (SentOutput(url="s3://b/?", path="/o/a\ufffd", size_bytes=1),)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"abc", "abc"),
        (b"abcdefgh", LOG_MARK.decode() + "efgh"),
        (LOG_MARK + b"abc", LOG_MARK.decode() + "abc"),
        (LOG_MARK + b"abcdefgh", LOG_MARK.decode() + "efgh"),
        (b"abcde\nfg", LOG_MARK.decode() + "e\nfg"[-2:]),
        (b"abcdef\ng", LOG_MARK.decode() + "ef\ng"),
        (b"a\0b", "a\ufffdb"),
        (b"\xffab", "\ufffdab"),
    ],
)
def test_log_text_is_sanitized_and_marks_truncation(data: bytes, text: str):
    assert log_text(data, cap=4) == text


def test_plan_round_trips_and_orders_containers():
    plan = PodPlan(
        inputs=("tif-0",),
        executors=("executor-0", "executor-1"),
        ignore_error=(True, False),
        prepared=(1,),
        outputs=("tof-0",),
        rescues=("rescue-0",),
        preemptible=True,
    )
    assert PodPlan.from_json(plan.to_json()) == plan
    assert list(plan) == ["tif-0", "executor-0", "prepare-1", "executor-1", "tof-0"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"executors":1}'])
def test_malformed_plan_is_rejected(text: str):
    with pytest.raises(MalformedPlan):
        PodPlan.from_json(text)


def test_work_list_round_trips_without_unset_fields():
    work = WorkList(
        task="t",
        inputs=(InputItem(path="/a", local="/task/root/a", url="s3://b/ä ?#"),),
        outputs=(
            OutputItem(path="/o/*", local="/task/root/o/*", url="s3://b/o", wildcard=True, path_prefix="/o"),
        ),
    )
    assert WorkList.from_json(work.to_json()) == work
    assert "content_file" not in work.to_json()


@pytest.mark.parametrize("text", ["", "{}", '{"version":2,"task":"t","inputs":[],"outputs":[]}'])
def test_work_list_of_another_version_is_rejected(text: str):
    with pytest.raises(MalformedWorkList):
        WorkList.from_json(text)


def test_unknown_work_list_fields_are_ignored():
    text = WorkList(task="t", inputs=(InputItem(path="/a", local="/task/root/a", url="s3://b/k"),)).to_json()
    later = text.replace('"path"', '"etag":"x","path"').replace('"task"', '"hint":1,"task"')
    assert WorkList.from_json(later) == WorkList.from_json(text)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], []),
        (["/a", "/b/c", "/ab"], [[0, 1, 2]]),
        (["/a/b", "/a"], [[1], [0]]),
        (["/a/b/c/d", "/a", "/a/b"], [[1], [2], [0]]),
        (["/a", "/a", "/b"], [[0, 2], [1]]),
        (["/a/b", "/a", "/a/b", "/a/c"], [[1], [0, 3], [2]]),
    ],
)
def test_covered_input_is_staged_later(paths: list[str], expected: list[list[int]]):
    assert waves([InputItem(path=path, local=path, url="s3://b/k") for path in paths]) == expected


def test_order_of_many_inputs_is_fast():
    items = [InputItem(path=f"/data/{n % 100}/{n}/x", local="", url="s3://b/k") for n in range(10_000)]
    assert waves(items) == [list(range(10_000))]
