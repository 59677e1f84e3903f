"""What each command asks of a server, prints, and exits with."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tes_for_tests import FAST, Reply, attempt, task

PACKAGE = Path(__file__).parent.parent


def test_run_sends_a_task_and_exits_as_it_ends(server, poiesis, tmp_path):
    (tmp_path / "x.sh").write_text("true\n")
    server.reply("POST /tasks", {"id": "t1"})
    failed = task("EXECUTOR_ERROR", logs=[attempt(42, stderr="no such read\n")])
    server.reply("GET /tasks/t1", task("QUEUED"), task("RUNNING"), failed)
    poiesis.env["SECRET"] = "s"
    ended = poiesis(
        "run", "--cpu", "2", "--ram-gb", "1.5", "--disk-gb", "3", "-i", "s3://b/k:/data/k",
        "-i", f"{tmp_path}/x.sh:/w/x.sh", "-o", "/out/*.txt:s3://b/out", "-e", "A=1", "-e", "SECRET",
        "--workdir", "/w", "--stdin", "/data/k", "--stdout", "/out/o", "--stderr", "/out/e", "--name", "n",
        "--tag", "k=v", "--volume", "/scratch", "--preemptible", "--backend-parameter", "VmSize=big",
        "alpine", "--", "sh", "-c", "a b",
    )  # fmt: skip
    (created,) = server.asked_of("POST /tasks")
    assert created.json == {
        "name": "n",
        "inputs": [
            {"url": "s3://b/k", "path": "/data/k", "type": "FILE"},
            {"content": "true\n", "path": "/w/x.sh", "type": "FILE"},
        ],
        "outputs": [{"url": "s3://b/out", "path": "/out/*.txt", "path_prefix": "/out", "type": "FILE"}],
        "resources": {
            "cpu_cores": 2,
            "ram_gb": 1.5,
            "disk_gb": 3.0,
            "preemptible": True,
            "backend_parameters": {"VmSize": "big"},
        },
        "executors": [
            {
                "image": "alpine",
                "command": ["sh", "-c", "a b"],
                "workdir": "/w",
                "stdin": "/data/k",
                "stdout": "/out/o",
                "stderr": "/out/e",
                "env": {"A": "1", "SECRET": "s"},
            }
        ],
        "volumes": ["/scratch"],
        "tags": {"k": "v"},
    }
    assert ended.code == 42
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert lines[0] == "task t1"
    assert [line.split()[2] for line in lines[1:4]] == ["QUEUED", "RUNNING", "EXECUTOR_ERROR"]
    assert lines[4:] == ["  executor 0 exited with code 42", "  no such read"]


def test_options_may_follow_the_image(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    ended = poiesis("run", "busybox", "--detach", "--name", "n", "--", "echo", "--name", "-n")
    assert (ended.code, ended.out, ended.err) == (0, "t1\n", "")
    (created,) = server.asked_of("POST /tasks")
    assert created.json == {
        "name": "n",
        "executors": [{"image": "busybox", "command": ["echo", "--name", "-n"]}],
    }


def test_an_option_of_the_command_before_the_dashes_is_explained(poiesis):
    ended = poiesis("run", "busybox", "echo", "-n")
    assert ended.code == 64
    assert "write -- before the command" in ended.err


def test_run_with_logs_prints_what_the_executor_prints(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    server.reply(
        "GET /tasks/t1",
        task("RUNNING", logs=[attempt(metadata={"executor-0.stdout": "one\n"})]),
        task("COMPLETE", logs=[attempt(0, stdout="one\ntwo\n", stderr="three\n")]),
    )
    ended = poiesis("run", "--logs", "--quiet", "busybox", "--", "x")
    assert (ended.code, ended.out, ended.err) == (0, "one\ntwo\n", "three\n")


def test_run_prints_json_when_that_is_asked_for(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    server.reply("GET /tasks/t1", task("COMPLETE", extra={"ä": None}))
    ended = poiesis("--output", "json", "run", "-q", "busybox", "--", "x")
    assert json.loads(ended.out) == task("COMPLETE", extra={"ä": None})
    ended = poiesis("--output", "json", "run", "--detach", "busybox", "--", "x")
    assert json.loads(ended.out) == {"id": "t1"}


def test_a_dry_run_asks_no_server(server, poiesis):
    ended = poiesis("run", "--dry-run", "busybox", "--", "x")
    assert json.loads(ended.out) == {"executors": [{"image": "busybox", "command": ["x"]}]}
    assert server.asked == []


@pytest.mark.parametrize(
    "words", [["--ram-gb", "nan"], ["--ram-gb", "inf"], ["--disk-gb", "0"], ["--cpu", "0"], ["--cpu", "1.5"]]
)
def test_what_is_no_size_is_refused(server, poiesis, words):
    ended = poiesis("run", *words, "busybox", "--", "x")
    assert ended.code == 64
    assert words[0] in ended.err
    assert server.asked == []


def test_each_create_has_a_key_of_its_own(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    for _ in range(2):
        poiesis("run", "--detach", "busybox", "--", "x")
    first, second = (asked.headers["Idempotency-Key"] for asked in server.asked_of("POST /tasks"))
    assert len(first) == len(second) == 36
    assert first != second


def test_create_sends_the_document_as_it_is(server, poiesis, tmp_path):
    server.reply("POST /tasks", {"id": "t1", "extra": None})
    document = {
        "executors": [{"image": "i", "command": ["x"], "unknown": [None]}],
        "inputs": [{"content": "x" * 2**20}],
    }
    file = tmp_path / "task.json"
    file.write_text(json.dumps(document))
    assert poiesis("create", str(file)).out == "t1\n"
    assert poiesis("create", "-", stdin=json.dumps(document).encode()).out == "t1\n"
    assert [asked.json for asked in server.asked_of("POST /tasks")] == [document, document]


def test_create_refuses_what_is_no_json_object(server, poiesis, tmp_path):
    assert poiesis("create", "-", stdin=b"[]").code == 64
    assert poiesis("create", str(tmp_path / "none")).code == 64
    assert server.asked == []


def test_a_create_without_an_id_in_the_answer_is_told(server, poiesis):
    server.reply("POST /tasks", {"id": None})
    ended = poiesis("run", "busybox", "--", "x")
    assert ended.code == 76
    assert "does not tell its id" in ended.err


def test_list_follows_pages_and_sends_every_filter(server, poiesis):
    server.reply(
        "GET /tasks",
        {"tasks": [task(task_id="a"), task(task_id="b", name=None)], "next_page_token": "p2"},
        {"tasks": [], "next_page_token": "p3"},
        {"tasks": None, "next_page_token": "p4"},
        {
            "tasks": [task("RUNNING", task_id="c", name="n", creation_time="2026-01-02T03:04:05.678Z")],
            "next_page_token": "",
        },
    )
    ended = poiesis(
        "list",
        "--output",
        "table",
        "--state",
        "running",
        "--tag",
        "k=v=w",
        "--tag",
        "l",
        "--name-prefix",
        "a&b",
    )
    assert ended.code == 0
    assert ended.err == ""
    assert [line.split() for line in ended.out.splitlines()] == [
        ["ID", "STATE", "CREATED", "NAME"],
        ["a", "COMPLETE"],
        ["b", "COMPLETE"],
        ["c", "RUNNING", "2026-01-02T03:04:05", "n"],
    ]
    filters = {
        "view": ["BASIC"],
        "state": ["RUNNING"],
        "name_prefix": ["a&b"],
        "tag_key": ["k", "l"],
        "tag_value": ["v=w", ""],
        "page_size": ["101"],
    }
    tokens = [{}, {"page_token": ["p2"]}, {"page_token": ["p3"]}, {"page_token": ["p4"]}]
    assert [asked.query for asked in server.asked] == [{**filters, **token} for token in tokens]


def test_list_stops_at_the_limit_and_says_that_there_is_more(server, poiesis):
    page = {"tasks": [task(task_id=str(number)) for number in range(3)], "next_page_token": "more"}
    server.reply("GET /tasks", page)
    ended = poiesis("list", "--limit", "2")
    assert [one["id"] for one in json.loads(ended.out)["tasks"]] == ["0", "1"]
    assert "more than 2" in ended.err
    assert len(server.asked) == 1


def test_list_without_limit_asks_for_full_pages(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task()], "next_page_token": "p2"}, {"tasks": [task()]})
    ended = poiesis("list", "--limit", "0")
    assert len(json.loads(ended.out)["tasks"]) == 2
    assert server.asked[0].query["page_size"] == ["256"]


def test_pages_that_lead_in_a_circle_end(server, poiesis):
    server.reply("GET /tasks", {"tasks": [], "next_page_token": "again"})
    ended = poiesis("list")
    assert ended.code == 76
    assert "circle" in ended.err


def test_markup_and_control_characters_in_a_name_are_only_text(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task(name="[red]x[/] \x1b]0;evil\x07")]})
    assert "[red]x[/] \ufffd]0;evil\ufffd" in poiesis("list", "--output", "table").out


def test_get_shows_a_task_whatever_is_missing(server, poiesis):
    server.reply("GET /tasks/t1", {"id": "t1", "state": "SOMETHING_NEW", "logs": None, "executors": None})
    ended = poiesis("get", "t1", "--output", "table")
    assert [line.split() for line in ended.out.splitlines()] == [["id", "t1"], ["state", "SOMETHING_NEW"]]


def test_get_shows_how_a_task_ended(server, poiesis):
    log = attempt(
        3,
        metadata={"reason": "Error", "message": "executor 0 exited with code 3"},
        outputs=[{"url": "s3://b/o", "size_bytes": "2500"}],
        system_logs=["first", "second"],
    )
    server.reply("GET /tasks/t1", task("EXECUTOR_ERROR", name="n", tags={"k": "v"}, logs=[attempt(1), log]))
    ended = poiesis("get", "t1", "--output", "table")
    assert [" ".join(line.split()) for line in ended.out.splitlines()] == [
        "id t1",
        "state EXECUTOR_ERROR",
        "name n",
        "tag k=v",
        "executor 0 busybox: true → exit code 3",
        "attempts 2",
        "reason Error",
        "message executor 0 exited with code 3",
        "output s3://b/o 2.5 kB",
        "log first",
        "log second",
    ]


def test_get_sends_view_and_id_as_they_should_be(server, poiesis):
    server.reply("GET /tasks/a%2Fb%3Fc%3A%C3%A4", task())
    assert poiesis("get", "a/b?c:ä", "--view", "basic").code == 0
    assert server.asked[0].query == {"view": ["BASIC"]}
    for wrong in ("", ".", ".."):
        assert poiesis("get", wrong).code == 64


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (task("COMPLETE"), 0),
        (task("EXECUTOR_ERROR", logs=[attempt(3)]), 3),
        (task("EXECUTOR_ERROR"), 123),
        (task("SYSTEM_ERROR"), 120),
        (task("CANCELED"), 121),
        (task("PREEMPTED"), 122),
    ],
)
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_wait_exits_as_the_task_ended(server, poiesis, document, code, quiet):
    server.reply("GET /tasks/t1", task("QUEUED"), task("SOMETHING_NEW"), document)
    ended = poiesis("wait", "t1", *quiet)
    assert ended.code == code
    assert json.loads(ended.out) == document
    views = [asked.query["view"] for asked in server.asked]
    assert views == ([["MINIMAL"]] * 3 + [["FULL"]] if quiet else [["FULL"]] * 3)
    assert bool(ended.err) is not bool(quiet)


def test_wait_gives_up_after_its_timeout_and_leaves_the_task(server, poiesis):
    server.reply("GET /tasks/t1", task("RUNNING"))
    ended = poiesis("wait", "t1", "--timeout", "0.5")
    assert ended.code == 124
    assert "it goes on" in ended.err
    assert "poiesis cancel t1" in ended.err
    assert {asked.method for asked in server.asked} <= {"GET"}


def test_wait_outlives_a_server_that_hangs_fails_or_is_cut_off(server, poiesis):
    server.reply(
        "GET /tasks/t1",
        task("RUNNING"),
        Reply(hang=True),
        Reply({"error": "starting"}, 503, {"Retry-After": "0"}),
        Reply(cut=True),
        Reply(b"<html>bad gateway", 502),
        task("COMPLETE"),
    )
    ended = poiesis("wait", "t1", timing=replace(FAST, request=0.4))
    assert ended.code == 0
    assert "did not answer in time; trying again" in ended.err


def test_wait_says_that_the_task_may_go_on_when_the_server_stays_away(server, poiesis):
    server.reply("GET /tasks/t1", task("RUNNING"), Reply({"error": "closed"}, 503))
    ended = poiesis("wait", "t1")
    assert ended.code == 69
    assert "503 closed" in ended.err
    assert "poiesis wait t1" in ended.err


def test_logs_prints_each_stream_to_its_own(server, poiesis):
    server.reply(
        "GET /tasks/t1", task("COMPLETE", logs=[attempt(0, 0, stdout="out\x1b[1m\n", stderr="err\ud800\n")])
    )
    ended = poiesis("logs", "t1")
    assert (ended.code, ended.out, ended.err) == (0, "out\x1b[1m\n" * 2, "err?\n" * 2)
    assert poiesis("logs", "t1", "--executor", "1", "--stream", "stdout").out == "out\x1b[1m\n"


def test_logs_follows_until_the_end_and_prints_everything_once(server, poiesis):
    lines = [f"line {number:03}\n" for number in range(100)]
    windows = ["".join(lines[max(0, end - 40) : end]) for end in (5, 30, 60, 95)]
    server.reply(
        "GET /tasks/t1",
        task("QUEUED"),
        task("INITIALIZING", logs=[attempt()]),
        *(task("RUNNING", logs=[attempt(metadata={"executor-0.stdout": window})]) for window in windows),
        task("RUNNING", logs=[attempt(0, stdout="".join(lines[60:]))]),
        task("COMPLETE", logs=[attempt(0, stdout="".join(lines[60:]))]),
    )
    ended = poiesis("logs", "-f", "t1")
    assert (ended.code, ended.out, ended.err) == (0, "".join(lines), "")


def test_logs_says_when_something_was_lost(server, poiesis):
    server.reply(
        "GET /tasks/t1",
        task("RUNNING", logs=[attempt(metadata={"executor-0.stdout": "the beginning\n"})]),
        task("COMPLETE", logs=[attempt(0, stdout="the end\n")]),
    )
    ended = poiesis("logs", "-f", "t1")
    assert ended.out == "the beginning\nthe end\n"
    assert "too fast to be kept" in ended.err


def test_logs_of_a_server_that_keeps_none(server, poiesis):
    server.reply("GET /tasks/t1", task("COMPLETE", logs=None))
    ended = poiesis("logs", "t1")
    assert (ended.code, ended.out) == (0, "")
    assert "no such output of task t1, which is COMPLETE" in ended.err


def test_logs_can_be_the_systems(server, poiesis):
    server.reply("GET /tasks/t1", task(logs=[attempt(system_logs=["a"]), attempt(system_logs=["b"])]))
    assert poiesis("logs", "t1", "--system").out == "a\nb\n"
    assert poiesis("logs", "t1", "--system", "--follow").code == 64


def test_cancel_goes_on_after_one_that_is_refused(server, poiesis):
    server.reply("POST /tasks/a:cancel", {})
    server.reply("POST /tasks/c:cancel", None)
    ended = poiesis("cancel", "a", "b", "c")
    assert (ended.code, ended.out) == (65, "a\nc\n")
    assert "no task 'b'" in ended.err
    answer = json.loads(poiesis("cancel", "a", "b", "--output", "json").out)
    assert [one["id"] for one in answer] == ["a", "b"]
    assert answer[0]["error"] is None
    assert "no task 'b'" in answer[1]["error"]


def test_info_shows_what_there_is(server, poiesis):
    document = {
        "name": "lab",
        "type": {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"},
        "organization": None,
        "storage": ["s3://a", "s3://b"],
        "tesResources_backend_parameters": ["VmSize"],
        "extra": 1,
    }
    server.reply("GET /service-info", document)
    assert json.loads(poiesis("info").out) == document
    table = poiesis("info", "--output", "table").out
    assert "org.ga4gh, tes, 1.1.0" in table
    assert "VmSize" in table


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (
            Reply({"error": "executors: too short", "field": "executors"}, 400),
            65,
            "executors: too short (400)",
        ),
        (Reply({"message": "no", "field": "inputs[0].url"}, 400), 65, "inputs[0].url: no (400)"),
        (Reply({"detail": [{"msg": "x"}]}, 422), 65, '[{"msg": "x"}] (422)'),
        (Reply(b"plain\x1b words", 409), 65, "plain\ufffd words (409)"),
        (Reply(b"<html><body>no", 400), 65, "a page for browsers (400)"),
        (Reply(b"", 405), 65, "without a word (405)"),
        (Reply({}, 401), 77, "poiesis login"),
        (Reply({"error": "insufficient_scope"}, 403), 77, "insufficient_scope"),
        (Reply({}, 404), 65, "is the server's URL right?"),
        (Reply(b"<html>welcome"), 76, "is not JSON"),
        (Reply([]), 76, "should answer with a JSON object"),
        (Reply({"error": "down"}, 500), 69, "has failed: 500 down"),
    ],
)
def test_a_refusal_says_what_the_server_says_and_what_to_do(server, poiesis, reply, code, words):
    server.reply("GET /service-info", reply)
    ended = poiesis("info")
    assert ended.code == code
    assert words in ended.err
    assert ended.out == ""


def test_a_task_that_is_not_there_is_told(poiesis):
    ended = poiesis("get", "t9")
    assert ended.code == 65
    assert "no task 't9'" in ended.err


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["get"], ["list", "--state", "ODD"], ["list", "--nonsense"], []]
)
def test_usage_errors_have_a_code_of_their_own(poiesis, words):
    ended = poiesis(*words)
    assert ended.code == 64
    assert "Usage: poiesis" in ended.err


def test_without_a_server_it_says_how_to_name_one(poiesis):
    del poiesis.env["POIESIS_SERVER"]
    ended = poiesis("list")
    assert ended.code == 64
    assert "POIESIS_SERVER" in ended.err
    assert ".config/poiesis/config.toml" in ended.err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list", "-h"], ["--version"]])
def test_help_is_no_error(poiesis, words):
    assert poiesis(*words).code == 0


@pytest.mark.parametrize("command", ["run", "create", "list", "get", "wait", "logs", "cancel", "login"])
def test_help_has_an_example_of_each_command(poiesis, command):
    assert f"poiesis {command} " in poiesis(command, "--help").out.partition("\n")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(poiesis, shell):
    assert f"_POIESIS_COMPLETE={shell}_complete" in poiesis("completion", shell).out


# ── as a process of its own


@contextmanager
def _process(server, *words, **options):
    """It ends with the block, whatever became of it."""
    # What a shell starts in its background ignores SIGINT, and so would what is started from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {
        "PYTHONPATH": str(PACKAGE),
        "POIESIS_SERVER": server.url,
        "HOME": "/nonexistent",
        "PATH": os.environ["PATH"],
    }
    with subprocess.Popen(
        [sys.executable, "-m", "poiesis_cli", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()


@pytest.mark.parametrize("words", [["run", "busybox", "--", "x"], ["wait", "t1"], ["logs", "-f", "t1"]])
def test_ctrl_c_leaves_the_task_running_and_says_how_to_go_on(server, words):
    seen = threading.Event()
    server.on_request = lambda asked: seen.set() if asked.method == "GET" else None
    server.reply("POST /tasks", {"id": "t1"})
    server.reply("GET /tasks/t1", task("RUNNING"))
    with _process(server, *words) as process:
        assert seen.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-2:] == [
        "poiesis: left task t1; it goes on",
        "  follow it: poiesis wait t1    cancel it: poiesis cancel t1",
    ]
    assert not [asked for asked in server.asked if asked.path.endswith(":cancel")]


def test_ctrl_c_while_a_poll_hangs_ends_at_once(server):
    seen = threading.Event()
    server.on_request = lambda _: seen.set()
    server.reply("GET /tasks/t1", Reply(hang=True))
    with _process(server, "wait", "t1") as process:
        assert seen.wait(60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=25)  # of the 30 s that a request has
    assert process.returncode == 130


@pytest.mark.parametrize("words", [["run", "busybox", "--", "x"], ["create", "-"]])
def test_ctrl_c_while_a_task_is_sent_says_that_there_may_be_one(server, words):
    seen = threading.Event()
    server.on_request = lambda _: seen.set()
    server.reply("POST /tasks", Reply(hang=True))
    with _process(server, *words, stdin=subprocess.PIPE) as process:
        process.stdin.write('{"executors": []}')
        process.stdin.close()
        assert seen.wait(60)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert "whether there is a task now is not known" in err
    assert "poiesis list" in err


def _on_a_terminal(server, *words):
    """Everything that the command writes to a terminal, and its exit code."""
    parent, child = pty.openpty()
    environment = {"PYTHONPATH": str(PACKAGE), "POIESIS_SERVER": server.url, "HOME": "/nonexistent"}
    with subprocess.Popen(
        [sys.executable, "-m", "poiesis_cli", *words],
        env=environment | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=child,
        stdout=child,
        stderr=child,
    ) as process:
        os.close(child)
        written = b""
        while True:
            try:
                block = os.read(parent, 65536)
            except OSError:  # EIO: nobody holds the other side any more
                break
            if not block:
                break
            written += block
    os.close(parent)
    return process.returncode, written.decode()


def test_on_a_terminal_tables_are_the_default_and_have_colours(server):
    server.reply("GET /tasks", {"tasks": [task(name="\x1b[5mx")]})
    code, written = _on_a_terminal(server, "list")
    assert code == 0
    assert "\x1b[32mCOMPLETE" in written
    assert "\x1b[5m" not in written


def test_on_a_terminal_a_clock_runs_while_a_task_is_waited_for(server):
    server.reply("GET /tasks/t1", task("RUNNING"), task("COMPLETE"))
    code, written = _on_a_terminal(server, "wait", "t1")
    assert code == 0
    assert "\x1b[?25l" in written  # the cursor is hidden ...
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # ... and shown again
    assert "RUNNING        executor 0 (1 of 1): true" in written


def test_a_reader_that_goes_away_is_no_crash(server):
    server.reply("GET /tasks/t1", task(logs=[attempt(0, stdout="x" * 2**20)]))
    read, write = os.pipe()
    os.close(read)
    environment = {"PYTHONPATH": str(PACKAGE), "POIESIS_SERVER": server.url, "HOME": "/nonexistent"}
    ended = subprocess.run(
        [sys.executable, "-m", "poiesis_cli", "logs", "t1"],
        env=environment,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr
