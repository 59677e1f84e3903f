"""The process as the image starts it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

HERE = Path(__file__).parents[1]
MODULE = [sys.executable, "-m", "poiesis_api"]
ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1] / "packages" / "models"))),
}


async def run(*arguments, env):
    process = await asyncio.create_subprocess_exec(
        *MODULE, *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_help_names_the_environment():
    code, out, _ = await run("--help", env=ENV)
    assert code == 0
    for name in ("POIESIS_DSN", "POD_NAMESPACE", "POIESIS_CONFIG"):
        assert name in out


async def test_bad_configuration_exits_2_with_one_line():
    code, _, err = await run(env=ENV)
    line = json.loads(err)
    assert (code, line["level"], line["message"]) == (2, "ERROR", "cannot start: POIESIS_DSN is not set")


async def test_missing_gateway_ca_exits_2_with_one_line(tmp_path):
    document = json.loads((HERE / "config.example.json").read_text())
    document["gateway"]["caFile"] = str(tmp_path / "ca.crt")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(document))
    env = ENV | {
        "POIESIS_DSN": "postgresql://poiesis_api@127.0.0.1:9/poiesis",
        "POD_NAMESPACE": "tasks",
        "POIESIS_CONFIG": str(config),
    }
    code, _, err = await run(env=env)
    line = json.loads(err)
    expected = f"cannot start: gateway.caFile: cannot use {tmp_path}/ca.crt: No such file or directory"
    assert (code, line["level"], line["message"]) == (2, "ERROR", expected)


@pytest.mark.integration
async def test_it_serves_until_sigterm(postgres_dsn, kubernetes, tmp_path, gateway_ca_file, free_port):
    port, metrics_port = free_port(), free_port()
    document = json.loads((HERE / "config.example.json").read_text())
    document["http"] = {
        "host": "127.0.0.1",
        "port": port,
        "metricsPort": metrics_port,
        "drainSeconds": 0.5,
    }
    document["gateway"]["caFile"] = str(gateway_ca_file)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(document))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(kubernetes.kubeconfig()))
    env = ENV | {
        "POIESIS_DSN": postgres_dsn,
        "POD_NAMESPACE": "tasks",
        "POIESIS_CONFIG": str(config),
        "KUBECONFIG": str(kubeconfig),
    }
    process = await asyncio.create_subprocess_exec(*MODULE, env=env, stderr=asyncio.subprocess.PIPE)

    async def until(message):
        while json.loads(await process.stderr.readline())["message"] != message:
            pass

    try:
        async with asyncio.timeout(30), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await until("serving")
            assert (await client.get("/readyz")).status == 200
            task = {"executors": [{"image": "busybox", "command": ["true"]}]}
            assert (await client.post("/ga4gh/tes/v1/tasks", json=task)).status == 200
            await kubernetes.until("PATCH Job")
            async with client.get(f"http://127.0.0.1:{metrics_port}/metrics") as response:
                assert "poiesis_api_submissions_total" in await response.text()
            process.send_signal(signal.SIGTERM)
            await until("stopping")
            assert (await client.get("/readyz")).status == 503
            assert (await client.get("/ga4gh/tes/v1/tasks")).status == 200
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    rest = [json.loads(line) for line in (await process.stderr.read()).splitlines()]
    assert {line["message"] for line in rest} <= {"request", "submitted task"}
