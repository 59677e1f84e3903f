"""The process: its exit codes and its end."""

import asyncio
import json
import os
import signal
import sys

import pytest


async def process(**variables: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poiesis_gateway"),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{f"POIESIS_GATEWAY_{name}": str(value) for name, value in variables.items()},
        },
        stderr=asyncio.subprocess.PIPE,
    )


async def test_invalid_configuration_is_exit_code_2(tmp_path):
    missing = tmp_path / "missing"
    for variables, error in (
        ({}, "POIESIS_GATEWAY_DSN_FILE is not set"),
        ({"DSN_FILE": missing, "CERTIFICATE_FILE": missing, "KEY_FILE": missing}, f"cannot read {missing}"),
    ):
        child = await process(**variables)
        _, stderr = await child.communicate()
        assert child.returncode == 2
        line = json.loads(stderr.splitlines()[-1])
        assert (line["level"], line["message"]) == ("ERROR", "cannot start")
        assert error in line["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_is_exit_code_0(files, tmp_path, free_port, number):
    child = await process(
        DSN_FILE=tmp_path / "dsn",
        CERTIFICATE_FILE=files[0],
        KEY_FILE=files[1],
        PORT=free_port(),
        HEALTH_PORT=free_port(),
        DRAIN_SECONDS="0.1",
    )
    assert child.stderr is not None
    async with asyncio.timeout(30):
        while b'"serving"' not in await child.stderr.readline():
            pass
        child.send_signal(number)
        _, stderr = await child.communicate()
    assert child.returncode == 0
    assert [json.loads(line)["message"] for line in stderr.splitlines()] == ["stopping"]
