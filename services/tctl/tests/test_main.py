import asyncio
import json
import os
import sys

import pytest


@pytest.mark.parametrize(
    ("env", "error"),
    [
        ({}, "POIESIS_DSN"),
        (
            {"POIESIS_DSN": "postgresql://x", "POD_NAME": "a", "POD_NAMESPACE": "tes"},
            "no credentials for Kubernetes",
        ),
    ],
)
async def test_invalid_configuration_is_exit_code_2(env, error, tmp_path):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "poiesis_tctl",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(tmp_path),
            **env,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await child.communicate()
    assert child.returncode == 2
    line = json.loads(stderr.splitlines()[-1])
    assert (line["level"], line["message"]) == ("ERROR", "cannot start")
    assert error in line["error"]


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
    lines = [" ".join(line.split()) for line in stdout.decode().splitlines()]
    assert any(line.startswith("POIESIS_RECONCILE_SECONDS 300 between two comparisons") for line in lines)
    assert any(line.startswith("POIESIS_DSN required") for line in lines)
