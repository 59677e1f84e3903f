"""Decisions without a server: URLs, mappings, documents, exit codes, delays, new log text."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tes_for_tests import attempt, task

from poiesis_cli.address import tes_base, unencrypted
from poiesis_cli.documents import RunRequest, check_fields, parse_document, task_document
from poiesis_cli.errors import BadUsage, Exit, NotTes
from poiesis_cli.live import Follower, added
from poiesis_cli.mappings import CONTENT_BYTES, parse_environment, parse_input, parse_output, parse_pairs
from poiesis_cli.progress import activity, duration_text, failure, missing_outputs, size_text
from poiesis_cli.tes import read_task
from poiesis_cli.timing import TIMING, Timing, next_poll, next_retry, retry_after_seconds
from poiesis_cli.web import printable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://tes.example.org", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/ga4gh/tes/v1", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/ga4gh/tes/v1/", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/ga4gh/tes", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/site", "https://tes.example.org/site/ga4gh/tes/v1"),
        ("https://tes.example.org/v1", "https://tes.example.org/v1"),
        ("https://tes.example.org/ga4gh/tes/v1/tasks", "https://tes.example.org/ga4gh/tes/v1"),
        ("https://tes.example.org/ga4gh/tes/v1/service-info", "https://tes.example.org/ga4gh/tes/v1"),
        (" http://[::1]:8080 ", "http://[::1]:8080/ga4gh/tes/v1"),
    ],
)
def test_tes_path_is_added_to_the_server_url(text, base):
    assert str(tes_base(text)) == base


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tes.example.org",
        "localhost:8080",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x/?a=b",
        "http://x#f",
    ],
)
def test_invalid_server_url_is_rejected(text):
    with pytest.raises(BadUsage, match="server must "):
        tes_base(text)


def test_password_in_a_url_is_rejected_and_hidden():
    for text in ("https://alice:geheim@tes.example.org", "alice:geheim@tes.example.org"):
        with pytest.raises(BadUsage) as rejection:
            tes_base(text)
        assert "geheim" not in f"{rejection.value} {rejection.value.advice}"


@pytest.mark.parametrize(
    ("url", "open_to_others"),
    [
        ("https://x", False),
        ("http://localhost:1", False),
        ("http://127.0.0.9", False),
        ("http://[::1]", False),
        ("http://x", True),
        ("http://10.0.0.1", True),
    ],
)
def test_http_is_unencrypted_except_to_this_machine(url, open_to_others):
    assert unencrypted(tes_base(url)) is open_to_others


@pytest.mark.parametrize(
    ("text", "url", "path", "kind"),
    [
        ("s3://b/k:/data/k", "s3://b/k", "/data/k", "FILE"),
        ("https://h:8080/a:b/c:/data/c", "https://h:8080/a:b/c", "/data/c", "FILE"),
        ("https://h:8080/?q=x://y:/data/c", "https://h:8080/?q=x://y", "/data/c", "FILE"),
        ("s3://b/dir/:/data/dir", "s3://b/dir/", "/data/dir", "DIRECTORY"),
        ("s3://b/dir:/data/dir/", "s3://b/dir", "/data/dir", "DIRECTORY"),
        ("file:///shared/a:/a", "file:///shared/a", "/a", "FILE"),
        ("drs://h/id:/data/with:colon", "drs://h/id", "/data/with:colon", "FILE"),
    ],
)
def test_an_input_is_a_url_and_a_path(text, url, path, kind):
    assert parse_input(text) == {"url": url, "path": path, "type": kind}


def test_local_file_becomes_content(tmp_path):
    file = tmp_path / "a:b.sh"
    file.write_bytes("echo ä\n".encode())
    assert parse_input(f"{file}:/w/x.sh") == {"content": "echo ä\n", "path": "/w/x.sh", "type": "FILE"}


@pytest.mark.parametrize("text", ["", "s3://b/k", "/data", ":/data", "s3://b/k:data", "s3://b/k:", "a://b"])
def test_input_without_a_path_is_rejected(text):
    with pytest.raises(BadUsage, match="--input must be URL:PATH"):
        parse_input(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * (CONTENT_BYTES + 1), f"larger than {CONTENT_BYTES} bytes"),
        (b"\xff", "not UTF-8 text"),
        (b"a\0b", "not UTF-8 text"),
    ],
)
def test_unsuitable_local_file_is_rejected(tmp_path, content, message):
    file = tmp_path / "it"
    file.write_bytes(content)
    with pytest.raises(BadUsage, match=message) as rejection:
        parse_input(f"{file}:/data/it")
    assert "upload it" in rejection.value.advice


def test_missing_local_file_or_directory_is_rejected(tmp_path):
    with pytest.raises(BadUsage, match="No such file"):
        parse_input(f"{tmp_path}/none:/data/it")
    with pytest.raises(BadUsage, match="is a local directory"):
        parse_input(f"{tmp_path}:/data/it")
    with pytest.raises(BadUsage, match="'/data/' is a directory") as rejection:
        parse_input(f"{tmp_path}/x:/data/")
    assert f"--input {tmp_path}/x:/data/x" in rejection.value.advice


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("/out/a:s3://b/a", {"path": "/out/a", "url": "s3://b/a", "type": "FILE"}),
        ("/out/a:b.txt:s3://b/a", {"path": "/out/a:b.txt", "url": "s3://b/a", "type": "FILE"}),
        ("/out/a:https://h:8080/x:y", {"path": "/out/a", "url": "https://h:8080/x:y", "type": "FILE"}),
        ("/out/d/:s3://b/d", {"path": "/out/d", "url": "s3://b/d", "type": "DIRECTORY"}),
        ("/out/d:s3://b/d/", {"path": "/out/d", "url": "s3://b/d/", "type": "DIRECTORY"}),
        ("/out/a:/shared/a", {"path": "/out/a", "url": "/shared/a", "type": "FILE"}),
        (
            "/out/*/a[0-9]:s3://b/d/",
            {"path": "/out/*/a[0-9]", "url": "s3://b/d/", "path_prefix": "/out", "type": "FILE"},
        ),
        ("/*.txt:s3://b", {"path": "/*.txt", "url": "s3://b", "path_prefix": "/", "type": "FILE"}),
    ],
)
def test_an_output_is_a_path_and_a_url(text, output):
    assert parse_output(text) == output


@pytest.mark.parametrize("text", ["", "/out/a", "/out/a:key", "s3://b/a:/out/a"])
def test_output_without_a_url_is_rejected(text):
    with pytest.raises(BadUsage, match="--output must be PATH:URL"):
        parse_output(text)


@pytest.mark.parametrize("text", ["out/a:s3://b/a", "./a:s3://b/a"])
def test_relative_output_path_is_explained(text):
    with pytest.raises(BadUsage, match="must be an absolute path in the container, got") as rejection:
        parse_output(text)
    assert "--output /out/a:" in rejection.value.advice


def test_output_format_after_run_is_explained():
    with pytest.raises(BadUsage) as rejection:
        parse_output("json")
    assert "poiesis --output json run" in rejection.value.advice


def test_pairs_may_contain_equal_signs_or_be_empty():
    assert parse_pairs("--tag", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(BadUsage, match="--tag"):
            parse_pairs("--tag", wrong)


def test_variable_without_a_value_is_inherited():
    assert parse_environment(["A", "B=2"], {"A": "1", "B": "x"}) == {"A": "1", "B": "2"}
    with pytest.raises(BadUsage, match="'C' is not set in your environment"):
        parse_environment(["C"], {})


def test_task_contains_the_set_options_only():
    assert task_document(RunRequest(image="i", command=["a", ""])) == {
        "executors": [{"image": "i", "command": ["a", ""]}]
    }
    whole = RunRequest(
        image="i",
        command=["a"],
        inputs=[{"url": "u", "path": "/p"}],
        outputs=[{"url": "u", "path": "/o"}],
        volumes=["/v"],
        env={"A": "1"},
        tags={"k": "v"},
        backend_parameters={"VmSize": "big"},
        name="n",
        workdir="/w",
        stdin="/in",
        stdout="/out",
        stderr="/err",
        cpu_cores=2,
        ram_gb=1.5,
        disk_gb=8.0,
        preemptible=True,
    )
    assert task_document(whole) == {
        "name": "n",
        "inputs": [{"url": "u", "path": "/p"}],
        "outputs": [{"url": "u", "path": "/o"}],
        "resources": {
            "cpu_cores": 2,
            "ram_gb": 1.5,
            "disk_gb": 8.0,
            "preemptible": True,
            "backend_parameters": {"VmSize": "big"},
        },
        "executors": [
            {
                "image": "i",
                "command": ["a"],
                "workdir": "/w",
                "stdin": "/in",
                "stdout": "/out",
                "stderr": "/err",
                "env": {"A": "1"},
            }
        ],
        "volumes": ["/v"],
        "tags": {"k": "v"},
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_document_that_is_no_object_is_rejected(data):
    with pytest.raises(BadUsage, match=r"task\.json"):
        parse_document(data, "task.json")


def test_yaml_is_read_with_the_types_of_json():
    text = b"name: 2026-01-02\nexecutors:\n- image: busybox\n  command: [echo, 'a: b']\n"
    executor = {"image": "busybox", "command": ["echo", "a: b"]}
    assert parse_document(text, "task.yaml") == {"name": "2026-01-02", "executors": [executor]}


@pytest.mark.parametrize(
    "data", [b"a: [", b"a: .nan", b"a: !!python/object:os.system x", b"? {a: b}\n: c", b"- a"]
)
def test_invalid_yaml_is_rejected(data):
    with pytest.raises(BadUsage, match=r"task\.yaml"):
        parse_document(data, "task.yaml")


@pytest.mark.parametrize(
    ("document", "message", "advice"),
    [
        ({"resource": {}}, "task.json: unknown field resource", "did you mean 'resources'?"),
        (
            {"executors": [{}, {"commands": []}]},
            "unknown field executors[1].commands",
            "did you mean 'command'?",
        ),
        ({"inputs": [{"paths": "/a"}]}, "unknown field inputs[0].paths", "did you mean 'path'?"),
        ({"resources": {"gpu": 1}}, "unknown field resources.gpu", "fields of TES 1.1: backend_parameters,"),
    ],
)
def test_unknown_field_is_rejected_with_a_suggestion(document, message, advice):
    with pytest.raises(BadUsage) as rejection:
        check_fields(document, "task.json")
    assert message in str(rejection.value)
    assert advice in rejection.value.advice


@pytest.mark.parametrize(
    "document",
    [
        {"executors": None, "inputs": "x", "resources": [1], "outputs": [None]},
        {"id": "t1", "state": "COMPLETE", "logs": [{"metadata": {"x": "y"}}], "creation_time": "t"},
        {"tags": {"anything": "x"}, "executors": [{"env": {"X": "1"}}]},
    ],
)
def test_known_fields_pass_whatever_their_values(document):
    check_fields(document, "task.json")


@pytest.mark.parametrize("document", [None, [], "t1", 3])
def test_response_that_is_no_object_is_rejected(document):
    with pytest.raises(NotTes):
        read_task(document)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": None, "executors": None, "logs": None, "tags": None, "creation_time": None},
        {"name": 7, "executors": "x", "logs": {"a": 1}, "tags": ["x"], "creation_time": 0},
        {"executors": [None, 3], "logs": [None, "x"], "tags": {"a": None, "b": 1}},
        {
            "logs": [{"logs": None, "metadata": None, "outputs": None, "system_logs": None}],
            "extra": {"a": [1]},
        },
        {
            "logs": [
                {
                    "logs": [None, {"exit_code": None, "stdout": None}],
                    "metadata": {"a": 1},
                    "system_logs": [None],
                }
            ]
        },
    ],
)
@pytest.mark.parametrize(
    "state", [None, 5, "RUNNING", "EXECUTOR_ERROR", "SYSTEM_ERROR", "COMPLETE", "SOMETHING_NEW"]
)
def test_unexpected_values_are_tolerated(fields, state):
    read = read_task({"id": None, "state": state, **fields})
    assert read.state == (state if isinstance(state, str) else "UNKNOWN")
    assert (read.id, read.name, read.creation_time) == ("", "", "")
    assert isinstance(activity(read), str)
    assert all(isinstance(line, str) for line in failure(read))
    assert list(Follower().new_chunks(read)) == []
    if read.ended:
        assert read.exit_code in set(Exit)


_IGNORING = [{"image": "i", "command": ["a"], "ignore_error": True}, {"image": "i", "command": ["b"]}]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (task("COMPLETE"), 0),
        (task("COMPLETE", executors=_IGNORING, logs=[attempt(3, 0)]), 0),
        (task("EXECUTOR_ERROR", logs=[attempt(1)]), 1),
        (task("EXECUTOR_ERROR", logs=[attempt(0, 42)]), 42),
        (task("EXECUTOR_ERROR", logs=[attempt(137)]), 137),
        (task("EXECUTOR_ERROR", logs=[attempt(255)]), 255),
        (task("EXECUTOR_ERROR", executors=_IGNORING, logs=[attempt(3, 4)]), 4),
        (task("EXECUTOR_ERROR", executors=_IGNORING, logs=[attempt(3)]), 3),
        (task("EXECUTOR_ERROR", logs=[attempt(7), attempt(8)]), 8),
        (task("EXECUTOR_ERROR", logs=[attempt(None)]), 123),
        (task("EXECUTOR_ERROR", logs=[attempt(0)]), 123),
        (task("EXECUTOR_ERROR", logs=[attempt(-1)]), 123),
        (task("EXECUTOR_ERROR", logs=[attempt(256)]), 123),
        (task("EXECUTOR_ERROR"), 123),
        (task("SYSTEM_ERROR", logs=[attempt(1)]), 120),
        (task("CANCELED", logs=[attempt(143)]), 121),
        (task("PREEMPTED"), 122),
    ],
)
def test_exit_code_of_an_ended_task(document, code):
    assert read_task(document).exit_code == code


@pytest.mark.parametrize("state", ["QUEUED", "PAUSED", "CANCELING", "UNKNOWN", "SOMETHING_NEW", ""])
def test_other_states_are_not_terminal(state):
    assert not read_task(task(state)).ended


@pytest.mark.parametrize(
    ("count", "spent", "patience", "retry_after", "delay"),
    [
        (0, 0.0, 10.0, None, 0.5),
        (1, 0.5, 10.0, None, 1.0),
        (2, 9.0, 10.0, None, None),
        (9, 0.0, 600.0, None, 15.0),
        (10_000, 0.0, 600.0, None, 15.0),
        (0, 0.0, 10.0, 7.0, 7.0),
        (0, 0.0, 10.0, 60.0, None),
        (0, 0.0, 600.0, 60.0, 60.0),
        (9, 0.0, 600.0, 0.0, 15.0),
    ],
)
def test_retries_back_off_and_obey_retry_after(count, spent, patience, retry_after, delay):
    assert next_retry(TIMING, count, spent, patience, retry_after) == delay


@pytest.mark.parametrize(("waited", "delay"), [(0, 1.0), (40, 2.0), (1e6, 5.0)])
def test_long_tasks_are_polled_less_often(waited, delay):
    assert next_poll(Timing(), waited) == delay


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("-7", None),
        ("1.5", None),
        ("٣", None),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 03:04:35", 30.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert retry_after_seconds(text, NOW) == seconds


_LINES = "".join(f"line {number}\n" for number in range(20))
_MARK = "[earlier output left out]\n"


@pytest.mark.parametrize(
    ("old", "new", "news", "gap"),
    [
        ("", "", "", False),
        ("", "a", "a", False),
        ("a", "ab", "b", False),
        ("ab", "ab", "", False),
        ("ab", "", "", False),
        (_LINES, _LINES[30:] + "more\n", "more\n", False),
        (_LINES, _MARK + _LINES[33:] + "more\n", "more\n", False),
        (_LINES, "\ufffd" + _LINES[33:] + "more\n", "more\n", False),
        (_LINES, _MARK + "\ufffd\ufffd" + _LINES[33:] + "more\n", "more\n", False),
        (_MARK + _LINES, _MARK + _LINES[33:] + "more\n", "more\n", False),
        (_LINES, _LINES[30:], "", False),
        (_LINES, "something else\n", "something else\n", True),
        ("xyz", "z and on", "z and on", True),  # one equal letter is chance
        ("a" * 40, "a" * 30 + "b", "b", False),
        ("ab" * 40, "ba" * 20 + "c", "ac", False),
    ],
)
def test_only_new_text_of_a_tail_is_shown(old, new, news, gap):
    assert added(old, new) == (news, gap)


@settings(deadline=None)
@given(st.text(alphabet="ab\n", max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_followed_text_is_shown_completely_and_once(text, steps):
    """A cap of 100 characters and never more than 40 new ones: nothing is lost, unless the text repeats."""
    text = "".join(f"{number}:{char}" for number, char in enumerate(text))  # so that it does not
    shown, seen, end = "", "", 0
    for step in [*steps, *[40] * (len(text) // 40 + 1)]:
        end = min(end + step, len(text))
        window = text[max(0, end - 100) : end]
        news, gap = added(seen, window)
        assert not gap
        shown, seen = shown + news, window
    assert shown == text


def test_long_repetitive_text_is_compared_quickly():
    assert added("a" * 65536 + "b", "a" * 65000 + "b" + "c") == ("c", False)


def _new_chunks(follower, document):
    return [(p.attempt, p.executor, p.stream, p.text) for p in follower.new_chunks(read_task(document))]


def test_executor_is_followed_from_metadata_to_log():
    follower = Follower()
    live = {
        "executor-0.stdout": "one\n",
        "executor-0.stderr": "oops\n",
        "pod": "p",
        "executor-x.stdout": "no",
    }
    assert _new_chunks(follower, task("RUNNING", logs=[attempt(metadata=live)])) == [
        (0, 0, "stdout", "one\n"),
        (0, 0, "stderr", "oops\n"),
    ]
    ended = attempt(0, stdout="one\ntwo\n", stderr="oops\n", metadata={"executor-1.stdout": "three\n"})
    assert _new_chunks(follower, task("RUNNING", logs=[ended])) == [
        (0, 0, "stdout", "two\n"),
        (0, 1, "stdout", "three\n"),
    ]
    assert _new_chunks(follower, task("RUNNING", logs=[ended])) == []


def test_new_attempt_is_shown_from_its_start():
    follower = Follower()
    first = attempt(1, stdout="one\n")
    assert _new_chunks(follower, task("RUNNING", logs=[first])) == [(0, 0, "stdout", "one\n")]
    assert _new_chunks(follower, task("RUNNING", logs=[first, first])) == [(1, 0, "stdout", "one\n")]


def test_partial_character_is_held_until_complete():
    follower = Follower()
    running = [attempt(metadata={"executor-0.stdout": "caf\ufffd"})]
    assert _new_chunks(follower, task("RUNNING", logs=running)) == [(0, 0, "stdout", "caf")]
    running = [attempt(metadata={"executor-0.stdout": "café au lait"})]
    assert _new_chunks(follower, task("RUNNING", logs=running)) == [(0, 0, "stdout", "é au lait")]


def test_invalid_bytes_are_shown_at_the_end():
    assert _new_chunks(Follower(), task("COMPLETE", logs=[attempt(0, stdout="a\ufffd")])) == [
        (0, 0, "stdout", "a\ufffd")
    ]
    running = [attempt(metadata={"executor-0.stdout": "\ufffd" * 9})]
    assert _new_chunks(Follower(), task("RUNNING", logs=running)) == [(0, 0, "stdout", "\ufffd" * 9)]


def test_output_of_a_killed_executor_is_shown():
    killed = [attempt(metadata={"executor-0.stdout": "last words"})]
    assert _new_chunks(Follower(), task("SYSTEM_ERROR", logs=killed)) == [(0, 0, "stdout", "last words")]


_TWO = [{"image": "i", "command": ["sort", "-n"]}, {"image": "i", "command": ["uniq"]}]
_STAGED = {"staging.files_done": "3", "staging.bytes_done": "2455495"}
_STAGING = _STAGED | {"staging.bytes_per_second": "209900000"}
_SENDING = {"sending.files_done": "1", "sending.bytes_done": "5", "sending.bytes_per_second": "0"}
_SECOND_RUNS = {
    "executor-0.start_time": "2026-01-01T00:00:00Z",
    "executor-0.end_time": "2026-01-01T00:00:01Z",
    "executor-1.start_time": "2026-01-01T00:00:01Z",
}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (task("QUEUED"), ""),
        (task("QUEUED", logs=[attempt(metadata={"waiting_reason": "no node fits"})]), "no node fits"),
        (task("QUEUED", logs=[attempt(metadata={"waiting_reason": "x" * 161})]), "x" * 159 + "…"),
        (task("INITIALIZING", logs=[attempt(metadata=_STAGED)]), "staged 3 files, 2.5 MB"),
        (
            task("INITIALIZING", logs=[attempt(metadata={"waiting_reason": "executor-0: ErrImagePull"})]),
            "executor-0: ErrImagePull",
        ),
        (
            task("INITIALIZING", logs=[attempt(metadata=_STAGING)]),
            "staging: 3 files, 2.5 MB so far, 209.9 MB/s",
        ),
        (task("RUNNING", executors=_TWO), "executor 0 (1 of 2): sort -n"),
        (
            task("RUNNING", executors=_TWO, logs=[attempt(0, metadata=_STAGED)]),
            "executor 1 (2 of 2): uniq; staged 3 files, 2.5 MB",
        ),
        (
            task("RUNNING", executors=_TWO, logs=[attempt(0, 0, metadata=_SENDING)]),
            "executors have ended, sending outputs; sending: 1 file, 5 bytes so far, 0 bytes/s",
        ),
        (
            task("RUNNING", executors=_TWO, logs=[attempt(metadata=_SECOND_RUNS)]),
            "executor 1 (2 of 2): uniq",
        ),
        (task("RUNNING", executors=_TWO, logs=[attempt(0, 0)]), "executors have ended, sending outputs"),
        (task("RUNNING", executors=None), "executor 0"),
        (
            task(
                "COMPLETE",
                logs=[attempt(0, metadata={"sending.files_done": "2", "sending.bytes_done": "12"})],
            ),
            "sent 2 files, 12 bytes",
        ),
        (task("SOMETHING_NEW"), ""),
    ],
)
def test_activity_of_a_task(document, words):
    assert activity(read_task(document)) == words


def test_failure_has_reason_and_last_lines():
    log = attempt(
        0, 2, stderr=_LINES, metadata={"reason": "Error", "message": "executor 1 exited with code 2"}
    )
    lines = list(failure(read_task(task("EXECUTOR_ERROR", executors=_TWO, logs=[log]))))
    assert lines[0] == "Error: executor 1 exited with code 2"
    assert lines[1:] == [f"line {number}" for number in range(10, 20)]
    assert list(failure(read_task(task("EXECUTOR_ERROR", logs=[log])), output=False)) == lines[:1]


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (task("COMPLETE", logs=[attempt(0, stderr="noise")]), []),
        (
            task("EXECUTOR_ERROR", logs=[attempt(3, stdout="output\n")]),
            ["executor 0 exited with code 3", "output"],
        ),
        (task("EXECUTOR_ERROR"), []),
        (task("SYSTEM_ERROR", logs=[attempt(system_logs=["a", "b"])]), ["a", "b"]),
        (
            task("SYSTEM_ERROR", logs=[attempt(system_logs=["a"], metadata={"message": "no image"})]),
            ["no image"],
        ),
    ],
)
def test_failure_uses_the_available_fields(document, lines):
    assert list(failure(read_task(document))) == lines


@pytest.mark.parametrize(
    "metadata",
    [
        {"staging.files_done": "1"},
        {"staging.files_done": "x", "staging.bytes_done": "1"},
        {"staging.files_done": "-1", "staging.bytes_done": "1"},
        {"staging.files_done": "9" * 20, "staging.bytes_done": "1"},
        {"executor-x.start_time": "y"},
    ],
)
def test_unexpected_metadata_shows_no_progress(metadata):
    assert activity(read_task(task("INITIALIZING", logs=[attempt(metadata=metadata)]))) == ""


def test_messages_are_never_parsed():
    lines = ["tif-0 in progress: 1 file, 5 bytes, 0.1 MB/s", "tif-0 staged 3 files, 2455495 bytes", "waits"]
    for state in ("QUEUED", "INITIALIZING", "COMPLETE"):
        assert activity(read_task(task(state, logs=[attempt(system_logs=lines)]))) == ""


_FILE = {"path": "/out/a", "url": "s3://b/a", "type": "FILE"}
_DIRECTORY = {"path": "/out/d", "url": "s3://b/d", "type": "DIRECTORY"}
_PATTERN = {"path": "/out/*.txt", "url": "s3://b", "path_prefix": "/out", "type": "FILE"}


@pytest.mark.parametrize(
    ("declared", "sent", "missing"),
    [
        ([_FILE], [], ["/out/a"]),
        ([_FILE], ["/out/a"], []),
        ([_DIRECTORY], ["/out/d/x/y"], []),
        ([_DIRECTORY], ["/out/dx"], ["/out/d"]),
        ([_PATTERN], ["/out/b.txt"], []),
        ([_PATTERN, _FILE], ["/out/b.csv"], ["/out/*.txt", "/out/a"]),
        ([{"url": "s3://b/a"}, {"path": None}], [], []),
    ],
)
def test_outputs_without_a_sent_file_are_missing(declared, sent, missing):
    log = attempt(0) | {"outputs": [{"path": path, "url": "s3://b/x", "size_bytes": "1"} for path in sent]}
    assert list(missing_outputs(read_task(task("COMPLETE", outputs=declared, logs=[log])))) == missing
    assert list(missing_outputs(read_task(task("CANCELED", outputs=declared, logs=[log])))) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7380, "2h03m"), (435_600, "5d01h")],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2455495, "2.5 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes_use_units_of_1000(count, text):
    assert size_text(count) == text


def test_control_characters_are_replaced():
    assert printable("a\x1b[31mb\rc\x9b\u202e\td") == "a\ufffd[31mb\ufffdc\ufffd\ufffd\td"
