"""Commands for many tasks: run --scatter, wait and cancel by tag, rerun, describe, list --since."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tes_for_tests import Reply, attempt, task

from poiesis_cli.advice import advice
from poiesis_cli.description import describe
from poiesis_cli.errors import BadUsage
from poiesis_cli.scatter import check_used, fill, parse_table
from poiesis_cli.tes import read_task
from poiesis_cli.timing import parse_since

NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


def pages(*tasks):
    return {"tasks": list(tasks)}


@pytest.fixture
def samples(tmp_path):
    file = tmp_path / "samples.tsv"
    file.write_text("sample\treads\nA\t10\nB\t20\n")
    return str(file)


# run --scatter


def test_scatter_creates_one_task_per_line(server, poiesis, samples):
    server.reply("POST /tasks", {"id": "a"}, {"id": "b"})
    ended = poiesis(
        "run", "--detach", "--scatter", samples, "-i", "s3://b/{sample}.fq:/in.fq", "-e", "N={reads}",
        "--tag", "study=x", "tools:{reads}", "--", "sh", "-c", "head -{reads} ${HOME} {other}",
    )  # fmt: skip
    first, second = (request.json for request in server.requests_to("POST /tasks"))
    assert ended.code == 0
    assert set(ended.out.split()) == {"a", "b"}
    assert (first["name"], second["name"]) == ("A", "B")
    assert first["inputs"] == [{"url": "s3://b/A.fq", "path": "/in.fq", "type": "FILE"}]
    assert first["executors"] == [
        {"image": "tools:10", "command": ["sh", "-c", "head -10 ${HOME} {other}"], "env": {"N": "10"}}
    ]
    assert first["tags"]["study"] == "x"
    assert first["tags"]["scatter"] == second["tags"]["scatter"]


def test_scatter_exits_with_the_highest_exit_code(server, poiesis, samples):
    server.reply("POST /tasks", {"id": "a"}, {"id": "b"})
    running = pages(
        task("RUNNING", task_id="a"), task("QUEUED", task_id="b"), task("RUNNING", task_id="other")
    )
    ended = pages(task("COMPLETE", task_id="a"), task("EXECUTOR_ERROR", task_id="b"))
    server.reply("GET /tasks", running, ended)
    server.reply("GET /tasks/b", task("EXECUTOR_ERROR", task_id="b", name="B", logs=[attempt(7)]))
    result = poiesis("run", "--scatter", samples, "busybox", "--", "echo", "{sample}")
    (tag,) = re.findall(r"with the tag (scatter=\w+);", result.err)
    assert result.code == 7
    assert "2 tasks: 1 COMPLETE, 1 EXECUTOR_ERROR" in result.err
    assert "  b  EXECUTOR_ERROR  B  executor 0 exited with code 7" in result.err
    (first, *_) = server.requests_to("GET /tasks")
    assert first.query["tag_value"] == [tag.removeprefix("scatter=")]


def test_scatter_reports_tasks_that_exist_after_an_error(server, poiesis, samples):
    server.reply("POST /tasks", {"id": "a"}, Reply({"message": "too many"}, status=429))
    ended = poiesis("run", "--scatter", samples, "busybox", "--", "echo", "{sample}")
    assert ended.code == 69
    assert re.search(r"1 of 2 tasks were created; cancel them: poiesis cancel --tag scatter=", ended.err)


def test_scatter_can_be_shown_without_creating(server, poiesis, samples):
    ended = poiesis("run", "--dry-run", "--scatter", samples, "busybox", "--", "echo", "{sample}")
    assert [one["executors"][0]["command"][1] for one in json.loads(ended.out)] == ["A", "B"]
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t is empty"),
        ("a\tb\n", "t must have 1 to 10000 lines after the heading, got 0"),
        ("a\tb\n1\n", "t, line 2: expected 2 fields, got 1"),
        ("a\n\n1\n1,2\n", "t, line 4: expected 1 fields, got 2"),
        ("a,a\n1,2\n", "t: two columns have the name 'a'"),
        ("a,\n1,2\n", "t: column 2 has no name"),
        ('a,b\n"1,2\n', "t, line 2: unexpected end of data"),
    ],
)
def test_invalid_table_is_rejected_with_its_line(text, message):
    with pytest.raises(BadUsage, match=re.escape(message)):
        parse_table(text, "t")


def test_comma_separated_values_may_be_quoted():
    table = parse_table('sample,note\nA,"x, y"\n', "t")
    assert table.rows == [{"sample": "A", "note": "x, y"}]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{a}/{b}", "1/{a}"),
        ("{{a}}", "{a}"),
        ("${a}", "$1"),
        ("{c} {print $1} {}", "{c} {print $1} {}"),
    ],
)
def test_only_columns_are_replaced_and_only_once(text, filled):
    assert fill(text, {"a": "1", "b": "{a}"}) == filled


def test_table_without_use_is_rejected():
    with pytest.raises(BadUsage, match="has a column of t") as raised:
        check_used(parse_table("a\n1\n", "t"), ["busybox", "echo"], "t")
    assert raised.value.advice == "write {a} where its value belongs"


# run --after


def test_task_is_created_after_an_earlier_one_is_complete(server, poiesis):
    server.reply("GET /tasks/e1", task("RUNNING", task_id="e1"), task("COMPLETE", task_id="e1"))
    server.reply("POST /tasks", {"id": "t1"})
    assert poiesis("run", "--detach", "-q", "--after", "e1", "busybox", "--", "x").out == "t1\n"
    assert [one.method for one in server.requests][-1] == "POST"


def test_no_task_is_created_after_a_failure(server, poiesis):
    server.reply("GET /tasks/e1", task("EXECUTOR_ERROR", task_id="e1", logs=[attempt(3)]))
    ended = poiesis("run", "--after", "e1", "busybox", "--", "x")
    assert ended.code == 3
    assert "nothing was created" in ended.err
    assert server.requests_to("POST /tasks") == []


# wait and cancel


def test_wait_for_several_tasks_prints_their_states_as_json(server, poiesis):
    server.reply("GET /tasks/a", task("RUNNING", task_id="a"), task("COMPLETE", task_id="a"))
    server.reply("GET /tasks/b", task("CANCELED", task_id="b"))
    ended = poiesis("wait", "--output", "json", "a", "b")
    assert ended.code == 121
    assert json.loads(ended.out) == [
        {"id": "a", "state": "COMPLETE", "exit_code": 0},
        {"id": "b", "state": "CANCELED", "exit_code": 121},
    ]


def test_wait_by_tag_ignores_tasks_created_later(server, poiesis):
    new = task("QUEUED", task_id="new")
    server.reply("GET /tasks", pages(task("RUNNING", task_id="a")), pages(task("COMPLETE", task_id="a"), new))
    ended = poiesis("wait", "--tag", "run=7")
    assert ended.code == 0
    assert "1 task: 1 COMPLETE" in ended.err


def test_wait_for_many_times_out(server, poiesis):
    server.reply("GET /tasks/a", task("RUNNING", task_id="a"))
    server.reply("GET /tasks/b", task("RUNNING", task_id="b"))
    ended = poiesis("wait", "-q", "--timeout", "0.2", "a", "b")
    assert ended.code == 124
    assert "they continue" in ended.err


@pytest.mark.parametrize("command", ["wait", "cancel"])
@pytest.mark.parametrize("words", [[], ["a", "--tag", "k=v"]])
def test_either_ids_or_tags_are_required(poiesis, command, words):
    ended = poiesis(command, *words)
    assert (ended.code, "either IDs or --tag is required" in ended.err) == (64, True)


def test_cancel_by_tag_cancels_unfinished_tasks(server, poiesis):
    server.reply("GET /tasks", pages(task("RUNNING", task_id="a"), task("COMPLETE", task_id="b")))
    server.reply("POST /tasks/a:cancel", {})
    server.reply("GET /tasks/a", task("CANCELING", task_id="a"))
    ended = poiesis("cancel", "--tag", "run=7")
    assert (ended.code, ended.out) == (0, "a\n")
    assert server.requests_to("POST /tasks/b:cancel") == []


def test_cancel_by_tag_reports_that_there_is_nothing(server, poiesis):
    server.reply("GET /tasks", pages())
    ended = poiesis("cancel", "--tag", "run=7")
    assert (ended.code, ended.err) == (0, "poiesis: no task with the tags run=7 is unfinished\n")


# rerun, token, use-server


def test_rerun_sends_the_same_request(server, poiesis):
    inputs = [{"path": "/in", "content": "x", "type": "FILE"}]
    server.reply(
        "GET /tasks/t1", task("SYSTEM_ERROR", inputs=inputs, creation_time="2026-11-29", logs=[attempt()])
    )
    server.reply("POST /tasks", {"id": "t2"})
    assert poiesis("rerun", "t1").out == "t2\n"
    (created,) = server.requests_to("POST /tasks")
    assert created.json == {"executors": [{"image": "busybox", "command": ["true"]}], "inputs": inputs}


def test_token_is_printed_for_other_programs(poiesis):
    poiesis.env["POIESIS_TOKEN"] = "abc"
    assert poiesis("token").out == "abc\n"


def test_password_is_never_printed_as_a_token(poiesis):
    poiesis.env |= {"POIESIS_USER": "u", "POIESIS_PASSWORD": "geheim"}
    ended = poiesis("token")
    assert (ended.code, ended.out) == (77, "")
    assert "geheim" not in ended.err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'server = "https://a.org"\n'),
        ('# mine\nserver = "x"\n\n[servers.x]\nurl = "https://x.org"\n', None),
        ('[servers.x]\nurl = "https://x.org"\n', None),
    ],
)
def test_default_server_is_written_and_the_rest_is_kept(poiesis, tmp_path, before, after):
    file = tmp_path / "config.toml"
    file.write_text(before)
    poiesis.env |= {"POIESIS_CONFIG": str(file)}
    assert poiesis("use-server", "https://a.org").code == 0
    text = file.read_text()
    assert 'server = "https://a.org"' in text.splitlines()[:2]
    assert after is None or text == after
    assert before.partition("[")[2] in text


def test_unknown_name_is_not_made_the_default(poiesis, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[servers.lab]\nurl = "https://x.org"\n')
    ended = poiesis("--config", str(file), "use-server", "labb")
    assert (ended.code, "configured: lab" in ended.err) == (64, True)
    assert "server =" not in file.read_text().partition("[")[0]


# list


def test_list_since_ends_at_the_first_older_task(server, poiesis):
    new, old = ("2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z")
    server.reply(
        "GET /tasks", pages(task(task_id="a", creation_time=new), task(task_id="b", creation_time=old))
    )
    ended = poiesis("list", "--since", "7d", "--output", "json")
    assert [one["id"] for one in json.loads(ended.out)["tasks"]] == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
    ],
)
def test_time_is_an_age_or_rfc_3339(text, expected):
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "5", "-5m", "1w", "yesterday"])
def test_other_times_are_rejected(poiesis, text):
    ended = poiesis("list", "--since", text)
    assert (ended.code, "--since must be an age" in ended.err) == (64, True)


def test_watch_requires_a_terminal(poiesis):
    assert "--watch requires a terminal" in poiesis("list", "--watch").err


def test_watch_refreshes_the_table_until_interrupted(server, poiesis):
    server.reply("GET /tasks", pages(task("RUNNING")), pages(task("COMPLETE")))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "poiesis_cli", "list", "--watch"],
        env={**os.environ, **poiesis.env, "TERM": "xterm", "COLUMNS": "100"},
        stdout=slave,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )
    seen, deadline = b"", time.monotonic() + 30
    while b"COMPLETE" not in seen and time.monotonic() < deadline:
        if select.select([master], [], [], 1)[0]:
            seen += os.read(master, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert seen.index(b"RUNNING") < seen.index(b"COMPLETE")
    os.close(master)
    os.close(slave)


# describe


def ended_task(**fields):
    log = attempt(
        3,
        stderr="no such read\n",
        metadata={
            "reason": "Error",
            "message": "executor 0 exited with code 3",
            "container": "executor-0",
            "tif-0.start_time": "2026-11-29T10:00:05Z",
            "tif-0.end_time": "2026-11-29T10:00:07Z",
            "executor-0.start_time": "2026-11-29T10:00:08Z",
            "executor-0.end_time": "2026-11-29T10:01:08Z",
        },
        start_time="2026-11-29T10:00:04Z",
        end_time="2026-11-29T10:01:10Z",
    )
    return task("EXECUTOR_ERROR", creation_time="2026-11-29T10:00:00Z", logs=[log], **fields)


def test_description_has_times_reason_and_next_steps():
    document = ended_task(resources={"cpu_cores": 2}, inputs=[{"path": "/in", "url": "s3://b/k"}])
    found = {one.heading: dict(one.rows) for one in describe(read_task(document), NOW)}
    assert found["Task"]["state"] == "EXECUTOR_ERROR"
    assert found["Reason"]["what to do"] == "read the output of the executor"
    assert found["Timeline"]["tif-0"].endswith("+5s  2s")
    assert found["Timeline"]["executor-0"].endswith("+8s  1m00s  exit code 3")
    assert found["Timeline"]["ended"].endswith("after 1m10s")
    assert found["Requested"] == {"cpu_cores": "2", "executor 0": "busybox: true"}
    assert found["Inputs"] == {"/in": "s3://b/k"}


def test_description_compares_used_with_requested():
    document = ended_task(resources={"ram_gb": 2})
    document["logs"][0]["metadata"]["executor-0.peak_memory_bytes"] = "500000000"
    found = {one.heading: dict(one.rows) for one in describe(read_task(document), NOW)}
    assert found["Used"] == {"executor 0": "memory 500.0 MB of 2 GB"}


def test_times_come_from_the_executors_on_other_servers():
    logs = [
        {"logs": [{"exit_code": 0, "start_time": "2026-11-29T10:00:00Z", "end_time": "2026-11-29T10:00:02Z"}]}
    ]
    found = {one.heading: dict(one.rows) for one in describe(read_task(task(logs=logs)), NOW)}
    assert found["Timeline"]["executor-0"].endswith("2s  exit code 0")


def test_describe_prints_sections(server, poiesis):
    server.reply("GET /tasks/t1", ended_task())
    lines = poiesis("describe", "t1").out.splitlines()
    assert {"Task", "Reason", "Timeline", "Requested", "Next"} <= set(lines)
    assert any("no such read" in line for line in lines)


@pytest.mark.parametrize(
    ("state", "metadata", "codes", "expected"),
    [
        ("COMPLETE", {}, (0,), ""),
        ("EXECUTOR_ERROR", {"reason": "OOMKilled"}, (137,), "request more memory"),
        ("EXECUTOR_ERROR", {"reason": "Error"}, (127,), "the image does not have the program"),
        ("EXECUTOR_ERROR", {"reason": "Error"}, (1,), "read the output"),
        ("SYSTEM_ERROR", {"reason": "Error", "container": "tif-0"}, (), "check the URL of the input"),
        ("SYSTEM_ERROR", {"reason": "NodeLost"}, (), "create the task again"),
        ("PREEMPTED", {}, (), "create the task again"),
        ("SYSTEM_ERROR", {"reason": "unknown"}, (), ""),
    ],
)
def test_advice_depends_on_the_reason(state, metadata, codes, expected):
    found = advice(read_task(task(state, logs=[attempt(*codes, metadata=metadata)])))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


# completion


def complete(poiesis, *words):
    """Return what the shell would be offered for the last word."""
    poiesis.env |= {"PATH": os.environ["PATH"]}
    ended = subprocess.run(
        [sys.executable, "-m", "poiesis_cli"],
        env=poiesis.env
        | {
            "_POIESIS_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["poiesis", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert ended.stderr == ""
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


def test_ids_are_completed_from_the_server(server, poiesis):
    server.reply("GET /tasks", pages(task(task_id="abc-1"), task(task_id="xyz-2")))
    assert complete(poiesis, "get", "ab") == ["abc-1"]


def test_unreachable_server_completes_nothing(poiesis):
    poiesis.env["POIESIS_SERVER"] = "http://127.0.0.1:9"
    assert complete(poiesis, "get", "ab") == []


def test_servers_are_completed_from_the_configuration(poiesis, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[servers.lab]\nurl = "https://x.org"\n[servers.home]\nurl = "https://y.org"\n')
    poiesis.env["POIESIS_CONFIG"] = str(file)
    assert complete(poiesis, "use-server", "l") == ["lab"]
