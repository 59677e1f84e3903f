import asyncio
import json
import logging
import os
import sys

import aiohttp
import pytest
from tctl_fakes import free_port

from poiesis_tctl import health
from poiesis_tctl.logs import JsonFormatter


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "POIESIS_DSN"),
        ({"POIESIS_DSN": "postgresql://x", "POD_NAME": "a", "POD_NAMESPACE": "tes"}, "NoCredentials"),
    ],
)
async def test_bad_configuration_is_exit_code_2(env, said):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "poiesis_tctl",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **env},
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await child.communicate()
    assert child.returncode == 2
    assert said in stderr.decode()


async def test_help_lists_the_variables():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "poiesis_tctl",
        "--help",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    stdout, _ = await child.communicate()
    assert child.returncode == 0
    assert "POIESIS_RECONCILE_SECONDS" in stdout.decode()


async def test_health_says_what_it_is_told():
    port = free_port()
    state = {"healthy": True, "ready": False}
    async with (
        health.serve(
            port, healthy=lambda: state["healthy"], ready=lambda: state["ready"], metrics=lambda: b""
        ),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path, expected in (("/healthz", 200), ("/readyz", 503), ("/", 404)):
            async with session.get(path) as response:
                assert response.status == expected
        state["ready"] = True
        async with session.get("/readyz") as response:
            assert response.status == 200


def test_log_line_is_an_event_and_its_fields():
    record = logging.LogRecord("poiesis_tctl.x", logging.INFO, "x.py", 1, "task %s", ("ended",), None)
    record.task = "t"
    line = json.loads(JsonFormatter().format(record))
    assert {key: line[key] for key in ("level", "logger", "event", "task")} == {
        "level": "INFO",
        "logger": "poiesis_tctl.x",
        "event": "task ended",
        "task": "t",
    }
    assert line.keys() == {"time", "level", "logger", "event", "task"}
