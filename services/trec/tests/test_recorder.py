"""The recorder from end to end: real files, a real Postgres."""

import asyncio
import os
import time
from dataclasses import replace

import asyncpg
import pytest

from poiesis_models.plan import PodPlan

pytestmark = pytest.mark.integration

ONE = PodPlan(executors=("executor-0",), ignore_error=(False,), upload_on_error=False)
TWO = PodPlan(executors=("executor-0", "executor-1"), ignore_error=(False, False), upload_on_error=False)
SENDING = PodPlan(
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0",),
    upload_on_error=True,
)


def ack(lab):
    return lab.config.ack_file.read_text() if lab.config.ack_file.exists() else None


async def test_task_is_recorded_from_start_to_ack(lab, task):
    async with lab.recording():
        await lab.eventually(task.state, "INITIALIZING")
        tif = lab.helper("tif-0").start()  # the gate creates the directory while the recorder runs
        tif.progress(event="progress", files=3, bytes=12345)
        tif.progress(event="warning", message="input 2 is empty")
        tif.end()
        first = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        first.write("stdout", b"one\n")
        await lab.eventually(task.executors, [(0, None, False, "one\n", None)])
        first.end()
        second = lab.helper("executor-1").start()
        second.write("stderr", b"two\xff\0\n")
        second.end()
        await lab.eventually(
            task.executors, [(0, 0, False, "one\n", ""), (1, 0, False, "", "two\ufffd\ufffd\n")]
        )
        assert ack(lab) is None
        tof = lab.helper("tof-0").start()
        tof.progress(event="output", url="s3://b/o", path="/o", size_bytes=5)
        tof.progress(event="progress", files=1, bytes=5)
        tof.end()
        await lab.eventually(task.state, "COMPLETE")
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "0")
    assert await task.outputs() == [("/o", "s3://b/o", 5)]
    assert await task.system_logs() == [
        "Pod poiesis-x-abcde started on node node-1",
        "tif-0 started",
        "tif-0: input 2 is empty",
        "tif-0 staged 3 files, 12345 bytes",
        "executor 0 started",
        "executor 0 exited with code 0",
        "executor 1 started",
        "executor 1 exited with code 0",
        "tof-0 started",
        "tof-0 sent 1 file, 5 bytes",
        "COMPLETE",
    ]
    row = await task.row()
    assert row["reported_by"] == "recorder"


async def test_filer_progress_is_recorded(lab, task):
    async with lab.recording():
        tif = lab.helper("tif-0")
        tif.start_ns -= 11 * 10**9
        tif.start().progress(event="progress", files=1, bytes=1000)
        await lab.eventually(task.filers, [("tif-0", False, 1, 1000, True)])
        tif.progress(event="progress", files=2, bytes=3000)
        tif.end()
        await lab.eventually(task.filers, [("tif-0", True, 2, 3000, True)])
        one = lab.helper("executor-0").start()
        one.progress(event="progress", files=9, bytes=9)  # an executor has no progress file
        one.end(1)
        lab.helper("tof-0").start().end()
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "1")
    assert await task.filers() == [("tif-0", True, 2, 3000, True), ("tof-0", True, 0, 0, False)]
    (line,) = [line for line in await task.system_logs() if "staged" in line]
    assert line.startswith("tif-0 staged 2 files, 3000 bytes in 11.")


async def test_the_type_of_an_input_reaches_postgres(lab, task):
    insert = "INSERT INTO input (task_id, index, path, url) VALUES ($1, $2, $3, 's3://b/k')"
    await task.db.execute(insert, task.id, 0, "/in/a")
    await task.db.execute(insert, task.id, 1, "/in/later")

    async def types():
        rows = await task.db.fetch("SELECT type::text FROM input WHERE task_id = $1 ORDER BY index", task.id)
        return [row["type"] for row in rows]

    async with lab.recording():
        tif = lab.helper("tif-0").start()
        tif.progress(event="input", path="/in/a", type="DIRECTORY")
        await lab.eventually(types, ["DIRECTORY", None])
        tif.progress(event="input", path="/in/later", type="FILE")
        lab.helper("executor-0").start().progress(event="input", path="/in/later", type="DIRECTORY")
        tif.end()
        await lab.eventually(types, ["DIRECTORY", "FILE"])


async def test_outcome_is_recorded_within_a_second(lab, task):
    lab.configure(plan=ONE, rescan_seconds=60)  # woken by files, not by the clock
    async with lab.recording():
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        began = time.monotonic()
        one.end()
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "0")
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("end", "row", "log"),
    [
        (
            {"exit_code": 7},
            ("EXECUTOR_ERROR", "Error", "executor 0 exited with code 7", "executor-0"),
            (0, 7, False, "", ""),
        ),
        (
            {"exit_code": 137, "signal": 9, "oom": True},
            ("EXECUTOR_ERROR", "OOMKilled", "executor 0 ran out of memory", "executor-0"),
            (0, 137, True, "", ""),
        ),
    ],
)
async def test_failed_executor_ends_the_task(lab, task, end, row, log):
    async with lab.recording(plan=TWO):
        lab.helper("executor-0").start().end(**end)
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "1")
    assert tuple((await task.row()).values())[:4] == row
    assert await task.executors() == [log]


async def test_failed_task_waits_for_its_outputs(lab, task):
    async with lab.recording(plan=SENDING):
        first = lab.helper("executor-0").start()
        first.put("failed", b"")
        first.end(7)
        lab.helper("executor-1").start().put("skipped", b"")
        await lab.eventually(lambda: after(task, "executor 1 did not run: an earlier container failed"), True)
        assert await task.state() == "RUNNING"
        tof = lab.helper("tof-0").start()
        tof.progress(event="output", url="s3://b/o", path="/o", size_bytes=5)
        tof.progress(event="error", message="s3://b/p: access denied")
        tof.end(65)
        await lab.eventually(task.state, "EXECUTOR_ERROR")
    assert (await task.row())["message"] == "executor 0 exited with code 7; then: s3://b/p: access denied"
    assert await task.outputs() == [("/o", "s3://b/o", 5)]


async def after(task, message):
    return message in await task.system_logs()


async def test_many_outputs_are_recorded_before_the_outcome(lab, task):
    async with lab.recording(plan=replace(SENDING, executors=("executor-0",), ignore_error=(False,))):
        lab.helper("executor-0").start().end()
        tof = lab.helper("tof-0").start()
        lines = (
            f'{{"event":"output","url":"s3://b/{number}","path":"/{number}","size_bytes":{number}}}\n'
            for number in range(2500)
        )
        (lab.config.runs / "tof-0/progress.jsonl").write_text("".join(lines))
        tof.end()
        await lab.eventually(task.state, "COMPLETE")
    assert len(await task.outputs()) == 2500


async def test_logs_are_recorded_up_to_a_limit(lab, task):
    async with lab.recording(plan=ONE):
        one = lab.helper("executor-0").start()
        for number in range(20):  # a helper's file has at most twice the cap, which is 1000 here
            one.write("stdout", b"%099d\n" % number)
            await asyncio.sleep(0)
        one.end()
        await lab.eventually(task.state, "COMPLETE")
    ((_, _, _, stdout, _),) = await task.executors()
    kept = "".join(f"{number:099d}\n" for number in range(11, 20))
    assert stdout == f"[poiesis: 1100 bytes of earlier output left out]\n{kept}"


@pytest.mark.parametrize("moment", ["INITIALIZING", "RUNNING"])
async def test_killed_recorder_loses_and_duplicates_nothing(lab, task, moment):
    lab.configure(plan=ONE)
    one = lab.helper("executor-0")
    if moment == "RUNNING":
        one.start().write("stdout", b"before\n")
    await lab.killed_after(task.state, moment)
    if moment == "INITIALIZING":
        one.start().write("stdout", b"before\n")
    one.write("stdout", b"meanwhile\n")
    async with lab.recording():
        one.write("stdout", b"after\n")
        one.end()
        await lab.eventually(task.state, "COMPLETE")
    assert await task.executors() == [(0, 0, False, "before\nmeanwhile\nafter\n", "")]
    assert await task.attempts() == 1
    logs = await task.system_logs()
    assert len(logs) == len(set(logs))


async def test_recorder_restarted_after_the_end_writes_the_ack(lab, task):
    lab.configure(plan=ONE)
    lab.helper("executor-0").start().end()
    await lab.killed_after(task.state, "COMPLETE")
    lab.config.ack_file.unlink(missing_ok=True)
    async with lab.recording():
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "0")


async def test_lost_connection_is_reopened(lab, task, postgres_dsn):
    lab.configure(plan=ONE, idle_seconds=60)
    async with lab.recording():
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        cut = await task.db.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'poiesis-trec' AND datname = current_database()"
        )
        assert len(cut) == 1
        one.write("stdout", b"still here\n")
        one.end()
        await lab.eventually(task.state, "COMPLETE")
    assert await task.executors() == [(0, 0, False, "still here\n", "")]


async def test_idle_connection_is_closed(lab, task):
    async def connections():
        return await task.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'poiesis-trec' AND datname = current_database()"
        )

    async with lab.recording(plan=ONE):
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        await lab.eventually(connections, 0)
        one.end()


async def test_outcome_is_recorded_after_a_postgres_outage(lab, task):
    lab.configure(plan=ONE)
    dsn = lab.config.dsn_file.read_text()
    lab.config.dsn_file.write_text("postgresql://nobody@127.0.0.1:1/none")
    async with lab.recording():
        lab.helper("executor-0").start().end()
        await asyncio.sleep(0.5)  # several tries fail
        lab.config.dsn_file.write_text(dsn)
        await lab.eventually(task.state, "COMPLETE")


async def test_invalid_token_is_rejected_and_rarely_retried(lab, task, caplog):
    lab.config.token_file.write_text("another")
    async with lab.recording(plan=ONE):
        lab.helper("executor-0").start().end()
        await lab.eventually(lambda: asyncio.to_thread(caplog.text.count, "report rejected"), 1)
        await asyncio.sleep(0.5)  # long enough for many tries
    assert caplog.text.count("report rejected") == 2  # then, and once more in shutdown
    assert await task.state() == "QUEUED"
    assert "another" not in caplog.text


async def test_unseen_cancel_wins_over_success(lab, task):
    async with lab.recording(plan=ONE):
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        await task.cancel()
        one.end()
        await lab.eventually(lambda: asyncio.to_thread(ack, lab), "1")
    assert (await task.row())["state"] == "CANCELED"
    assert await task.executors() == [(0, 0, False, "", "")]


async def test_cancel_waits_for_the_executor(lab, task):
    async with lab.recording(plan=TWO) as stop:
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        await task.cancel()
        stop.set()  # the Pod is deleted: executor and recorder get SIGTERM
        await lab.eventually(lambda: after(task, "executor 0 started"), True)
        one.write("stdout", b"last words\n")
        assert await task.state() == "CANCELING"
        one.end(0, signal=0, term=True)
        await lab.eventually(task.state, "CANCELED")
    assert await task.executors() == [(0, 143, False, "last words\n", "")]


async def test_unstarted_task_is_canceled_in_shutdown(lab, task):
    async with lab.recording() as stop:
        await lab.eventually(task.state, "INITIALIZING")
        await task.cancel()
        stop.set()
        await lab.eventually(task.state, "CANCELED")


async def test_evicted_pod_leaves_its_logs(lab, task):
    async with lab.recording(plan=ONE) as stop:
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        stop.set()
        one.write("stdout", b"last words\n")
        one.end(143, signal=15, term=True)
    assert await task.state() == "RUNNING"
    assert await task.executors() == [(0, 143, False, "last words\n", "")]
    assert "executor 0 received SIGTERM and exited with code 143" in await task.system_logs()


async def test_cancel_waits_for_a_killed_executor(lab, task):
    """The helper kills it 3 s before the end of the grace period."""
    async with lab.recording(plan=ONE, grace_seconds=4) as stop:
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        await task.cancel()
        stop.set()
        await asyncio.sleep(1.05)
        one.end(137, signal=9, term=True)
        await lab.eventually(task.state, "CANCELED", 1)


async def test_recorder_exits_before_a_hanging_executor(lab, task):
    lab.configure(plan=ONE, grace_seconds=6)
    async with lab.recording() as stop:
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        began = time.monotonic()
        stop.set()
        one.write("stdout", b"last words\n")
    assert time.monotonic() - began < 4
    assert await task.state() == "RUNNING"
    assert await task.executors() == [(0, None, False, "last words\n", None)]


async def test_recorder_exits_in_time_without_postgres(lab):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    lab.config.dsn_file.write_text(f"postgresql://nobody@127.0.0.1:{port}/none?sslmode=disable")
    lab.configure(plan=ONE, grace_seconds=5)
    began = time.monotonic()
    async with lab.recording() as stop:
        lab.helper("executor-0").start().end(7)
        stop.set()
    assert time.monotonic() - began < 4
    server.close()


async def test_hostile_files_do_not_stop_the_recorder(lab, task, tmp_path):
    """A directory, symlink, FIFO or 512 MiB in place of a file, and text that is not JSON."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    async with lab.recording(plan=TWO):
        one = lab.helper("executor-0").start()
        directory = lab.config.runs / "executor-0"
        one.put("exit.json", b"{" * 5000)
        (directory / "stdout").unlink()
        (directory / "stdout").symlink_to(secret)
        (directory / "stderr").unlink()
        os.mkfifo(directory / "stderr")
        (directory / "failed").mkdir()
        await lab.eventually(task.state, "RUNNING")
        with (directory / "stdout.new").open("wb") as huge:
            huge.truncate(2**29)
        (directory / "stdout.new").rename(directory / "stdout")
        one.end()
        lab.helper("executor-1").start().end()
        await lab.eventually(task.state, "COMPLETE")
    ((_, code, _, stdout, stderr), _) = await task.executors()
    assert (code, stderr) == (0, None)
    assert len(stdout) < 1100
    assert "secret" not in stdout


async def test_recorder_role_may_only_call_its_function(lab, task, postgres_dsn):
    db = await asyncpg.connect(lab.config.dsn_file.read_text())
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("SELECT * FROM task")
    finally:
        await db.close()
