"""The requests, output and exit code of each command."""

import json
import os
import pty
import re
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


def test_run_sends_task_and_returns_its_exit_code(server, poiesis, tmp_path):
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
    (created,) = server.requests_to("POST /tasks")
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
    assert lines[4:] == ["  executor 0 exited with code 42", "  no such read", "  output: poiesis logs t1"]


def test_options_may_follow_the_image(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    ended = poiesis("run", "busybox", "--detach", "--name", "n", "--", "echo", "--name", "-n")
    assert (ended.code, ended.out, ended.err) == (0, "t1\n", "")
    (created,) = server.requests_to("POST /tasks")
    assert created.json == {
        "name": "n",
        "executors": [{"image": "busybox", "command": ["echo", "--name", "-n"]}],
    }


def test_option_of_the_command_without_dashes_is_explained(poiesis):
    ended = poiesis("run", "busybox", "echo", "-n")
    assert ended.code == 64
    assert "write -- first" in ended.err


def test_run_with_logs_prints_the_executors_output(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    server.reply(
        "GET /tasks/t1",
        task("RUNNING", logs=[attempt(metadata={"executor-0.stdout": "one\n"})]),
        task("COMPLETE", logs=[attempt(0, stdout="one\ntwo\n", stderr="three\n")]),
    )
    ended = poiesis("run", "--logs", "--quiet", "busybox", "--", "x")
    assert (ended.code, ended.out, ended.err) == (0, "one\ntwo\n", "three\n")


def test_run_prints_json_on_request(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    server.reply("GET /tasks/t1", task("COMPLETE", extra={"ä": None}))
    ended = poiesis("--output", "json", "run", "-q", "busybox", "--", "x")
    assert json.loads(ended.out) == task("COMPLETE", extra={"ä": None})
    ended = poiesis("--output", "json", "run", "--detach", "busybox", "--", "x")
    assert json.loads(ended.out) == {"id": "t1"}


def test_dry_run_sends_no_request(server, poiesis):
    ended = poiesis("run", "--dry-run", "busybox", "--", "x")
    assert json.loads(ended.out) == {"executors": [{"image": "busybox", "command": ["x"]}]}
    assert server.requests == []


@pytest.mark.parametrize(
    "words", [["--ram-gb", "nan"], ["--ram-gb", "inf"], ["--disk-gb", "0"], ["--cpu", "0"], ["--cpu", "1.5"]]
)
def test_invalid_size_is_rejected(server, poiesis, words):
    ended = poiesis("run", *words, "busybox", "--", "x")
    assert ended.code == 64
    assert words[0] in ended.err
    assert server.requests == []


def test_each_create_has_its_own_key(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    for _ in range(2):
        poiesis("run", "--detach", "busybox", "--", "x")
    first, second = (request.headers["Idempotency-Key"] for request in server.requests_to("POST /tasks"))
    assert len(first) == len(second) == 36
    assert first != second


def test_create_sends_the_document_unchanged(server, poiesis, tmp_path):
    server.reply("POST /tasks", {"id": "t1", "extra": None})
    document = {
        "executors": [{"image": "i", "command": ["x"], "env": [None]}],
        "inputs": [{"content": "x" * 2**20}],
    }
    file = tmp_path / "task.json"
    file.write_text(json.dumps(document))
    assert poiesis("create", str(file)).out == "t1\n"
    assert poiesis("create", "-", stdin=json.dumps(document).encode()).out == "t1\n"
    assert [request.json for request in server.requests_to("POST /tasks")] == [document, document]


def test_create_rejects_a_document_that_is_no_object(server, poiesis, tmp_path):
    assert poiesis("create", "-", stdin=b"[]").code == 64
    assert poiesis("create", str(tmp_path / "none")).code == 64
    assert server.requests == []


def test_create_without_an_id_in_the_response_fails(server, poiesis):
    server.reply("POST /tasks", {"id": None})
    ended = poiesis("run", "busybox", "--", "x")
    assert ended.code == 76
    assert "returned no id" in ended.err


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
        ["ID", "STATE", "EXIT", "CREATED", "DURATION", "NAME"],
        ["a", "COMPLETE", "0"],
        ["b", "COMPLETE", "0"],
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
    assert [request.query for request in server.requests] == [{**filters, **token} for token in tokens]


def test_list_reports_that_the_limit_was_reached(server, poiesis):
    page = {"tasks": [task(task_id=str(number)) for number in range(3)], "next_page_token": "more"}
    server.reply("GET /tasks", page)
    ended = poiesis("list", "--limit", "2", "--output", "json")
    assert [one["id"] for one in json.loads(ended.out)["tasks"]] == ["0", "1"]
    assert "more than 2" in ended.err
    assert len(server.requests) == 1


def test_list_without_limit_requests_large_pages(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task()], "next_page_token": "p2"}, {"tasks": [task()]})
    ended = poiesis("list", "--limit", "0", "--output", "json")
    assert len(json.loads(ended.out)["tasks"]) == 2
    assert server.requests[0].query["page_size"] == ["2000"]


def test_repeated_page_token_ends_the_list(server, poiesis):
    server.reply("GET /tasks", {"tasks": [], "next_page_token": "again"})
    ended = poiesis("list")
    assert ended.code == 76
    assert "same next_page_token twice" in ended.err


def test_markup_and_control_characters_are_plain_text(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task(name="[red]x[/] \x1b]0;evil\x07")]})
    assert "[red]x[/] \ufffd]0;evil\ufffd" in poiesis("list", "--output", "table").out


def test_get_shows_a_task_with_missing_fields(server, poiesis):
    server.reply("GET /tasks/t1", {"id": "t1", "state": "SOMETHING_NEW", "logs": None, "executors": None})
    ended = poiesis("get", "t1", "--output", "table")
    assert [line.split() for line in ended.out.splitlines()] == [["id", "t1"], ["state", "SOMETHING_NEW"]]


def test_get_shows_the_outcome(server, poiesis):
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


def test_get_shows_used_of_requested(server, poiesis):
    metadata = {
        "executor-0.start_time": "2026-01-01T00:00:00Z",
        "executor-0.end_time": "2026-01-01T00:00:02Z",
        "executor-0.cpu_time_ms": "2040",
        "executor-0.peak_memory_bytes": "209715200",
        "executor-0.disk_used_bytes": "100000000",
        "peak_memory_bytes": "209715200",
    }
    resources = {"cpu_cores": 2, "ram_gb": 0.5}
    server.reply("GET /tasks/t1", task(resources=resources, logs=[attempt(0, metadata=metadata)]))
    lines = poiesis("get", "t1", "--output", "table").out.splitlines()
    assert [re.split(" {2,}", line) for line in lines[-3:]] == [
        [""],
        ["EXECUTOR", "CPU CORES", "MEMORY", "DISK"],
        ["0", "1.02 of 2", "209.7 MB of 0.5 GB", "100.0 MB"],
    ]


def test_get_shows_the_waiting_reason_and_duration(server, poiesis):
    log = attempt(metadata={"waiting_reason": "no node fits"}, start_time="2026-01-01T00:00:00")
    server.reply("GET /tasks/t1", task("QUEUED", logs=[log]))
    lines = [line.split(maxsplit=1) for line in poiesis("get", "t1", "--output", "table").out.splitlines()]
    assert ["waiting", "no node fits"] in lines
    (duration,) = [text for label, text in lines if label == "duration"]
    assert re.fullmatch(r"\d+d\d\dh", duration)


def test_get_encodes_the_id_and_sends_the_view(server, poiesis):
    server.reply("GET /tasks/a%2Fb%3Fc%3A%C3%A4", task())
    assert poiesis("get", "a/b?c:ä", "--view", "basic").code == 0
    assert server.requests[0].query == {"view": ["BASIC"]}
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
def test_wait_returns_the_exit_code_of_the_task(server, poiesis, document, code, quiet):
    server.reply("GET /tasks/t1", task("QUEUED"), task("SOMETHING_NEW"), document)
    ended = poiesis("wait", "t1", *quiet)
    assert ended.code == code
    assert json.loads(ended.out) == document
    views = [request.query["view"] for request in server.requests]
    assert views == [["MINIMAL" if quiet else "BASIC"]] * 3 + [["FULL"]]
    assert bool(ended.err) is not bool(quiet)


def test_wait_stops_after_its_timeout(server, poiesis):
    server.reply("GET /tasks/t1", task("RUNNING"))
    ended = poiesis("wait", "t1", "--timeout", "0.5")
    assert ended.code == 124
    assert "it continues" in ended.err
    assert "poiesis cancel t1" in ended.err
    assert {request.method for request in server.requests} <= {"GET"}


def test_wait_retries_all_failures_of_the_server(server, poiesis):
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
    assert "did not respond in time; retrying" in ended.err


def test_wait_reports_that_the_task_may_continue(server, poiesis):
    server.reply("GET /tasks/t1", task("RUNNING"), Reply({"error": "closed"}, 503))
    ended = poiesis("wait", "t1")
    assert ended.code == 69
    assert "returned 503: closed" in ended.err
    assert "poiesis wait t1" in ended.err


def test_logs_separates_stdout_and_stderr(server, poiesis):
    server.reply(
        "GET /tasks/t1", task("COMPLETE", logs=[attempt(0, 0, stdout="out\x1b[1m\n", stderr="err\ud800\n")])
    )
    ended = poiesis("logs", "t1")
    assert (ended.code, ended.out, ended.err) == (0, "out\x1b[1m\n" * 2, "err?\n" * 2)
    assert poiesis("logs", "t1", "--executor", "1", "--stream", "stdout").out == "out\x1b[1m\n"


def test_logs_follow_prints_everything_once(server, poiesis):
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


def test_logs_reports_missing_output(server, poiesis):
    server.reply(
        "GET /tasks/t1",
        task("RUNNING", logs=[attempt(metadata={"executor-0.stdout": "the beginning\n"})]),
        task("COMPLETE", logs=[attempt(0, stdout="the end\n")]),
    )
    ended = poiesis("logs", "-f", "t1")
    assert ended.out == "the beginning\nthe end\n"
    assert "part of the stdout of executor 0 is missing" in ended.err


def test_logs_reports_that_there_is_no_output(server, poiesis):
    server.reply("GET /tasks/t1", task("COMPLETE", logs=None))
    ended = poiesis("logs", "t1")
    assert (ended.code, ended.out) == (0, "")
    assert "no such output of task t1 (COMPLETE)" in ended.err


def test_logs_prints_system_logs(server, poiesis):
    server.reply("GET /tasks/t1", task(logs=[attempt(system_logs=["a"]), attempt(system_logs=["b"])]))
    assert poiesis("logs", "t1", "--system").out == "a\nb\n"
    assert poiesis("logs", "t1", "--system", "--follow").code == 64


def test_cancel_continues_after_a_rejected_one(server, poiesis):
    server.reply("POST /tasks/a:cancel", {})
    server.reply("GET /tasks/a", task("CANCELING", task_id="a"))
    server.reply("POST /tasks/c:cancel", None)
    server.reply("GET /tasks/c", task("CANCELED", task_id="c"))
    ended = poiesis("cancel", "a", "b", "c")
    assert (ended.code, ended.out) == (65, "a\nc\n")
    assert "no such task: 'b'" in ended.err
    answer = json.loads(poiesis("cancel", "a", "b", "--output", "json").out)
    assert [one["id"] for one in answer] == ["a", "b"]
    assert answer[0] == {"id": "a", "state": "CANCELING", "error": None}
    assert "no such task: 'b'" in answer[1]["error"]


def test_cancel_of_an_ended_task_says_so(server, poiesis):
    server.reply("POST /tasks/t1:cancel", {})
    server.reply("GET /tasks/t1", task("COMPLETE"))
    ended = poiesis("cancel", "t1")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "poiesis: task t1 had already ended: COMPLETE\n"


SHORT, OTHER = "3f2a9c11-0000-4000-8000-000000000001", "3f2a0000-0000-4000-8000-000000000002"


def test_short_id_finds_its_task(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task(task_id=OTHER), task(task_id=SHORT)]})
    server.reply(f"GET /tasks/{SHORT}", task(task_id=SHORT))
    server.reply(f"POST /tasks/{SHORT}:cancel", {})
    for words in (["get"], ["wait", "--quiet"], ["logs"], ["cancel"]):
        assert poiesis(*words, "3f2a9").code == 0
    assert len(server.requests_to(f"POST /tasks/{SHORT}:cancel")) == 1


def test_ambiguous_or_unknown_short_id_is_rejected(server, poiesis):
    server.reply("GET /tasks", {"tasks": [task(task_id=OTHER), task(task_id=SHORT)]})
    ended = poiesis("get", "3f2a")
    assert ended.code == 64
    assert "'3f2a' is the start of several task ids" in ended.err
    assert SHORT in ended.err
    assert "no such task: '3f2b'" in poiesis("get", "3f2b").err


def test_full_id_is_not_searched(server, poiesis):
    assert poiesis("get", SHORT).code == 65
    assert server.requests_to("GET /tasks") == []


@pytest.mark.parametrize("words", [["wait"], ["logs", "-f"]])
def test_unknown_id_is_the_only_message(poiesis, words):
    ended = poiesis(*words, "t9")
    assert ended.code == 65
    assert ended.err.startswith("poiesis: no such task: 't9'")


def test_run_warns_of_missing_outputs(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    outputs = [{"path": "/out/a", "url": "s3://b/a"}, {"path": "/out/b", "url": "s3://b/b"}]
    sent = attempt(0) | {"outputs": [{"path": "/out/a", "url": "s3://b/a", "size_bytes": "1"}]}
    server.reply("GET /tasks/t1", task("COMPLETE", outputs=outputs, logs=[sent]))
    ended = poiesis("run", "busybox", "--", "x")
    assert ended.code == 0
    assert "warning: the log lists no file for output /out/b" in ended.err
    assert "/out/a" not in ended.err


def test_run_prints_how_to_see_the_output(server, poiesis):
    server.reply("POST /tasks", {"id": "t1"})
    server.reply("GET /tasks/t1", task("COMPLETE", logs=[attempt(0, stdout="x\n")]))
    assert poiesis("run", "i", "--", "x").err.endswith("  output: poiesis logs t1\n")
    assert "poiesis logs" not in poiesis("run", "--logs", "i", "--", "x").err
    assert poiesis("run", "--quiet", "i", "--", "x").err == ""


def test_last_output_comes_before_the_outcome(server, poiesis):
    server.reply("GET /tasks/t1", task("RUNNING"), task("COMPLETE", logs=[attempt(0, stderr="last\n")]))
    lines = poiesis("wait", "--logs", "t1").err.splitlines()
    assert lines[-2] == "last"
    assert lines[-1].endswith("COMPLETE")


def test_piped_list_has_one_line_per_task(server, poiesis):
    times = {"start_time": "2026-01-02T03:04:05Z", "end_time": "2026-01-02T03:05:10.5Z"}
    failed = task("EXECUTOR_ERROR", name="a long name " * 20, logs=[attempt(0, 3, **times)])
    server.reply("GET /tasks", {"tasks": [failed, task(task_id="t2", logs=[attempt(0)])]})
    lines = poiesis("list").out.splitlines()
    assert lines[0].split() == ["ID", "STATE", "EXIT", "CREATED", "DURATION", "NAME"]
    assert lines[1].split()[:4] == ["t1", "EXECUTOR_ERROR", "3", "1m05s"]
    assert lines[1].endswith("a long name " * 19 + "a long name")
    assert lines[2].split() == ["t2", "COMPLETE", "0"]


def test_list_shows_owners_that_the_server_returns(server, poiesis):
    owned = task(logs=[attempt(0, metadata={"owner": "alice"})])
    server.reply("GET /tasks", {"tasks": [owned, task(task_id="t2")]})
    lines = poiesis("list").out.splitlines()
    assert "OWNER" in lines[0]
    assert lines[1].split() == ["t1", "COMPLETE", "0", "alice"]


def test_create_rejects_unknown_fields(server, poiesis, tmp_path):
    server.reply("POST /tasks", {"id": "t1"})
    file = tmp_path / "task.yaml"
    file.write_text("resource: {}\nexecutors: [{image: busybox, command: [date]}]\n")
    ended = poiesis("create", str(file))
    assert ended.code == 64
    assert f"{file}: unknown field resource" in ended.err
    assert server.requests == []
    assert poiesis("create", "--allow-unknown-fields", str(file)).out == "t1\n"


def test_errors_name_standard_input(poiesis):
    assert "poiesis: standard input is not valid JSON" in poiesis("create", "-", stdin=b"{").err


def test_usage_is_requested_next_to_the_tes_api(server, poiesis):
    report = {"rows": [{"owner": "alice", "tasks": 3}], "truncated": True}
    server.reply("GET //poiesis/v1/usage", report)
    ended = poiesis("usage", "--since", "2026-11-01", "--by", "owner", "--output", "table")
    assert [line.split() for line in ended.out.splitlines()] == [["OWNER", "TASKS"], ["alice", "3"]]
    assert "the report is not complete" in ended.err
    assert server.requests[0].query == {"since": ["2026-11-01"], "group_by": ["owner"]}
    assert json.loads(poiesis("usage", "--output", "json").out) == report


def test_usage_prints_the_csv_of_the_server(server, poiesis):
    server.reply("GET //poiesis/v1/usage", Reply(b"tasks\r\n3\r\n"))
    assert poiesis("usage", "--csv").out.split() == ["tasks", "3"]
    assert server.requests[0].query == {"format": ["csv"]}


def test_usage_needs_poiesis(server, poiesis):
    ended = poiesis("usage")
    assert ended.code == 65
    assert "no reports of usage at" in ended.err


def test_info_shows_known_fields(server, poiesis):
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
        (Reply(b"<html><body>no", 400), 65, "an HTML page (400)"),
        (Reply(b"", 405), 65, "no message (405)"),
        (Reply({}, 401), 77, "poiesis login"),
        (Reply({"error": "insufficient_scope"}, 403), 77, "insufficient_scope"),
        (Reply({}, 404), 65, "no TES API at"),
        (Reply(b"<html>welcome"), 76, "is not JSON"),
        (Reply([]), 76, "must be a JSON object"),
        (Reply({"error": "down"}, 500), 69, "returned 500: down"),
    ],
)
def test_error_has_the_servers_message_and_advice(server, poiesis, reply, code, words):
    server.reply("GET /service-info", reply)
    ended = poiesis("info")
    assert ended.code == code
    assert words in ended.err
    assert ended.out == ""


def test_unknown_task_is_reported(poiesis):
    ended = poiesis("get", "t9")
    assert ended.code == 65
    assert "no such task: 't9'" in ended.err


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["frobnicate"], ["poiesis: no such command 'frobnicate'", "  see poiesis --help"]),
        (["get"], ["poiesis: missing argument 'ID'", "  see poiesis get --help"]),
        (["list", "--nonsense"], ["poiesis: no such option '--nonsense'", "  see poiesis list --help"]),
        (
            ["list", "--limit"],
            ["poiesis: option '--limit' requires an argument", "  see poiesis --help"],
        ),
        (
            ["create", "/nonexistent"],
            ["poiesis: FILE: '/nonexistent': No such file or directory", "  see poiesis create --help"],
        ),
        (
            ["completion", "tcsh"],
            ["poiesis: SHELL must be one of bash, zsh, fish, got 'tcsh'", "  see poiesis completion --help"],
        ),
        (
            ["logs", "x", "--stream", "both"],
            ["poiesis: --stream must be one of stdout, stderr, got 'both'", "  see poiesis logs --help"],
        ),
        (
            ["list", "--limit", "-1"],
            ["poiesis: --limit must be a whole number, at least 0, got '-1'", "  see poiesis list --help"],
        ),
        (
            ["wait", "x", "--timeout", "0"],
            ["poiesis: --timeout must be a number above 0, got '0'", "  see poiesis wait --help"],
        ),
    ],
)
def test_usage_errors_name_option_and_value(poiesis, words, lines):
    ended = poiesis(*words)
    assert ended.code == 64
    assert ended.err.splitlines() == lines


def test_call_without_a_command_prints_the_help(poiesis):
    ended = poiesis()
    assert ended.code == 64
    assert "Usage: poiesis" in ended.err


def test_missing_server_is_explained(poiesis):
    del poiesis.env["POIESIS_SERVER"]
    ended = poiesis("list")
    assert ended.code == 64
    assert "POIESIS_SERVER" in ended.err
    assert ".config/poiesis/config.toml" in ended.err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list", "-h"], ["--version"]])
def test_help_exits_with_0(poiesis, words):
    assert poiesis(*words).code == 0


@pytest.mark.parametrize(
    "command",
    ["run", "create", "list", "get", "wait", "logs", "cancel", "info", "login", "logout", "completion"],
)
def test_every_command_has_an_example_in_its_help(poiesis, command):
    assert f"poiesis {command} " in poiesis(command, "--help").out.partition("\n")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_for_all_shells(poiesis, shell):
    assert f"_POIESIS_COMPLETE={shell}_complete" in poiesis("completion", shell).out


# ── as a process


@contextmanager
def _process(server, *words, **options):
    """Run the command until the end of the block."""
    # A background job of a shell ignores SIGINT, and its children inherit that.
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
def test_ctrl_c_leaves_the_task_running(server, words):
    seen = threading.Event()
    server.on_request = lambda request: seen.set() if request.method == "GET" else None
    server.reply("POST /tasks", {"id": "t1"})
    server.reply("GET /tasks/t1", task("RUNNING"))
    with _process(server, *words) as process:
        assert seen.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-2:] == [
        "poiesis: interrupted; task t1 continues",
        "  follow it: poiesis wait t1    cancel it: poiesis cancel t1",
    ]
    assert not [request for request in server.requests if request.path.endswith(":cancel")]


def test_ctrl_c_aborts_a_hanging_request(server):
    seen = threading.Event()
    server.on_request = lambda _: seen.set()
    server.reply("GET /tasks/t1", Reply(hang=True))
    with _process(server, "wait", "t1") as process:
        assert seen.wait(60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=25)  # of the 30 s that a request has
    assert process.returncode == 130


@pytest.mark.parametrize("words", [["run", "busybox", "--", "x"], ["create", "-"]])
def test_ctrl_c_during_create_reports_a_possible_task(server, words):
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
    assert "the task may or may not have been created" in err
    assert "poiesis list" in err


def _on_a_terminal(server, *words, columns="100"):
    """Return the exit code and everything that the command writes to a terminal."""
    parent, child = pty.openpty()
    environment = {"PYTHONPATH": str(PACKAGE), "POIESIS_SERVER": server.url, "HOME": "/nonexistent"}
    with subprocess.Popen(
        [sys.executable, "-m", "poiesis_cli", *words],
        env=environment | {"TERM": "xterm", "COLUMNS": columns},
        stdin=child,
        stdout=child,
        stderr=child,
    ) as process:
        os.close(child)
        written = b""
        while True:
            try:
                block = os.read(parent, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not block:
                break
            written += block
    os.close(parent)
    return process.returncode, written.decode()


def test_terminal_gets_coloured_tables(server):
    server.reply("GET /tasks", {"tasks": [task(name="\x1b[5mx")]})
    code, written = _on_a_terminal(server, "list")
    assert code == 0
    assert "\x1b[32mCOMPLETE" in written
    assert "\x1b[5m" not in written


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        ("60", ["ID", "STATE", "NAME"]),
        ("80", ["ID", "STATE", "EXIT", "NAME"]),
        ("120", ["ID", "STATE", "EXIT", "CREATED", "DURATION", "NAME"]),
    ],
)
def test_narrow_terminal_gets_fewer_columns(server, columns, headings):
    long = task("EXECUTOR_ERROR", task_id=SHORT, name="n" * 200, creation_time="2026-01-02T03:04:05Z")
    server.reply("GET /tasks", {"tasks": [long]})
    _, written = _on_a_terminal(server, "list", columns=columns)
    table = re.sub(r"\x1b\[[0-9;]*[mAK]", "", written).rpartition("\x1b[?25h")[2]  # after the spinner
    head, row = filter(None, map(str.strip, table.splitlines()))
    assert head.split() == headings
    assert row.startswith(f"{SHORT}  EXECUTOR_ERROR")
    assert row.endswith("…")
    assert len(row) <= max(int(columns), 66)


def test_terminal_gets_a_spinner_during_wait(server):
    server.reply("GET /tasks/t1", task("RUNNING"), task("COMPLETE"))
    code, written = _on_a_terminal(server, "wait", "t1")
    assert code == 0
    assert "\x1b[?25l" in written  # the cursor is hidden ...
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # ... and shown again
    assert "RUNNING        executor 0 (1 of 1): true" in written


def test_closed_output_pipe_exits_with_141(server):
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
