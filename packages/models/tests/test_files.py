"""Files that come from containers are read with suspicion."""

import json

import pytest

from poiesis_models.plan import MalformedPlan, PodPlan
from poiesis_models.runfiles import (
    LOG_MARK_BYTES,
    ExitRecord,
    FilerProgress,
    FoundInput,
    LogText,
    MalformedFile,
    ResourceUsage,
    SentOutput,
    Started,
    log_mark,
    more_log,
    parse_progress,
    whole_log,
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
        usage=ResourceUsage(user_us=10, sys_us=20),
    )


MEASURED = {
    "user_us": 10,
    "sys_us": 20,
    "peak_memory_bytes": 30,
    "read_bytes": 0,
    "written_bytes": 50,
    "disk_used_bytes": 2**63 - 1,
}


def test_exit_record_has_the_measured_usage():
    assert ExitRecord.parse(json.dumps(EXIT | MEASURED).encode()).usage == ResourceUsage(**MEASURED)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "1", True, None])
def test_usage_must_fit_a_database_column(name, value):
    with pytest.raises(MalformedFile, match=name):
        ExitRecord.parse(json.dumps(EXIT | {name: value}).encode())


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
    ("data", "begin", "text"),
    [
        (b"", 0, ""),
        (b"abc", 0, "abc"),
        (b"abcdefgh", 4, "efgh"),
        (log_mark(7) + b"abc", 7, "abc"),
        (log_mark(7) + b"abcdefgh", 11, "efgh"),
        (b"abcde\nfg", 6, "fg"),
        (b"abcdef\ng", 4, "ef\ng"),
        (b"a\0b", 0, "a\ufffdb"),
        (b"\xffab", 0, "\ufffdab"),
        ("abcd€f".encode(), 4, "€f"),
        ("abc€fgh".encode(), 6, "fgh"),  # the limit is inside a character
    ],
)
def test_whole_log_is_sanitized_and_marks_truncation(data: bytes, begin: int, text: str):
    found = whole_log(data, cap=4, ended=True)
    assert (found.begin, found.text) == (begin, (log_mark(begin).decode() if begin else "") + text)


def test_mark_counts_the_bytes_before():
    assert log_mark(1234) == b"[poiesis: 1234 bytes of earlier output left out]\n"
    assert len(log_mark(2**63)) <= LOG_MARK_BYTES


GARBLED = "a€\0😀é".encode() + b"\xff\xf0\x9f\x80x\xe2\x82" + "€z".encode() + b"\xe2\x82"


@pytest.mark.parametrize("at", range(len(GARBLED) + 1))
def test_appended_pieces_join_to_the_whole_text(at: int):
    first = whole_log(GARBLED[:at], cap=1000, ended=False)
    rest = more_log(GARBLED, first.end, ended=True)
    assert rest is not None
    assert first.text + rest.text == whole_log(GARBLED, cap=1000, ended=True).text
    assert (rest.begin, rest.end) == (first.end, len(GARBLED))


def test_appended_text_continues_after_a_rewrite_of_the_log():
    data = log_mark(100) + b"abcdef"
    assert more_log(data, 103, ended=False) == LogText(text="def", begin=103, end=106)
    assert more_log(data, 106, ended=False) == LogText(text="", begin=106, end=106)
    assert more_log(data, 99, ended=False) is None
    assert more_log(data, 107, ended=False) is None


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
