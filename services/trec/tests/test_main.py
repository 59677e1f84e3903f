"""The process: exit codes, signals, and what it does not load."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from poiesis_models.plan import PodPlan

TREC = Path(__file__).parents[1]
SEARCH = os.pathsep.join([str(TREC), str(TREC.parents[1] / "packages/models")])
PROGRAM = """
import sys
from pathlib import Path
from poiesis_trec import __main__, config
read = config.Config.from_env.__func__
config.Config.from_env = classmethod(lambda cls, env: read(cls, env, root=Path(sys.argv[1])))
sys.exit(__main__.main())
"""


@pytest.fixture
def env() -> dict[str, str]:
    return {
        "PYTHONPATH": SEARCH,
        "POIESIS_TASK_ID": "6a0b7e6e-2b0e-4b57-8a3c-0d7c1a6b0f11",
        "POIESIS_PLAN": PodPlan(executors=("executor-0",), ignore_error=(False,)).to_json(),
        "POD_NAME": "poiesis-x-abcde",
        "POD_UID": "uid-1",
        "POD_NAMESPACE": "tasks",
        "NODE_NAME": "node-1",
        "POIESIS_GRACE_SECONDS": "4",
    }


@pytest.fixture
def root(lab, tmp_path) -> Path:
    (tmp_path / "poiesis/recorder/token").write_text("s3cret")
    lab.config.dsn_file.write_text("postgresql://u:passw0rd@127.0.0.1:1/none")
    return tmp_path


def test_invalid_configuration_exits_with_2(env):
    done = subprocess.run(
        [sys.executable, "-m", "poiesis_trec"],
        env=env | {"POIESIS_TASK_ID": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "POIESIS_TASK_ID must be a UUID" in done.stderr


def test_early_sigterm_exits_with_0(env, root):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)], env=env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "recording task" in first
    assert "SIGTERM received" in rest
    assert "s3cret" not in first + rest
    assert "passw0rd" not in first + rest


def test_helper_is_installed_before_recording(env, root, tmp_path):
    """A kubelet that restarts before it has run the hook does not run it later."""
    made = tmp_path / "made"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)],
        env=env | {"POIESIS_INSTALL": json.dumps(["/bin/sh", "-c", f"mkdir {made}"])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "recording task" in process.stderr.readline()
    assert made.is_dir()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("command", [["/no/such/program"], ["/bin/sh", "-c", "exit 3"]])
def test_failed_install_does_not_stop_recording(env, root, command):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)],
        env=env | {"POIESIS_INSTALL": json.dumps(command)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert command[0] in process.stderr.readline()
    assert "recording task" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_only_needed_modules_are_loaded(env):
    """Every megabyte costs every task. Only the Postgres transport loads asyncpg."""
    unwanted = ["asyncpg", "pydantic", "aiohttp", "kubernetes", "yaml", "http.client", "email", "unittest"]
    program = f"""
import sys, poiesis_trec.__main__, poiesis_trec.recorder, poiesis_trec.gateway_sink
print([name for name in {unwanted} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
