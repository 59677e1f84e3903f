"""Submitted scripts print and report what the judge expects: they run in a local shell here."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest

from poiesis_e2e.chaos.ledger import Ledger, of_task
from poiesis_e2e.chaos.shapes import MAKERS, Shape, Step, document, input_key, output_key

_SH = shutil.which("sh") or "/bin/sh"


@pytest.fixture
async def ledger() -> AsyncIterator[tuple[Ledger, str]]:
    made = Ledger()
    async with made.at("127.0.0.1") as url:
        yield made, url


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH with a wget limited to busybox's options, and a short sleep."""
    tools = {
        "wget": '#!/bin/sh\nexec python3 -c "import sys, urllib.request as u;'
        'u.build_opener(u.ProxyHandler({})).open(sys.argv[1]).read()" "$4"\n',
        "sleep": f'#!/bin/sh\necho "$1" >>{tmp_path}/slept\n',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


async def _run(arguments: list[str], path: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        _SH,
        *arguments[1:],
        env={"PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("step", [Step(lines=1, seconds=0), Step(lines=7, seconds=3, exit_code=9)])
async def test_step_prints_reports_and_exits_as_declared(
    step: Step, ledger: tuple[Ledger, str], path: str, tmp_path: Path
) -> None:
    book, url = ledger
    shape = Shape(name="one", steps=(step,))
    (executor,) = document(shape, name="run-1-0", image="busybox", ledger=url, bucket="s3://b/")["executors"]

    code, out, err = await _run(executor["command"], path)

    assert (code, out, err) == (step.exit_code, step.printed("stdout"), step.printed("stderr"))
    assert [(one.executor, one.word) for one in of_task(book, "run-1-0")] == [(0, "started"), (0, "ended")]
    slept = (tmp_path / "slept").read_text().split() if step.seconds else []
    assert len(slept) == step.seconds


async def test_second_start_adds_an_entry_unlike_retry(ledger: tuple[Ledger, str], path: str) -> None:
    book, url = ledger
    shape = Shape(name="one", steps=(Step(lines=1, seconds=0),))
    (executor,) = document(shape, name="run-1-0", image="busybox", ledger=url, bucket="s3://b/")["executors"]

    await _run(executor["command"], path)
    await _run(executor["command"], path)
    (first, *_) = book
    before = list(book)
    await _run(["sh", "-c", f"wget -q -O /dev/null {url}/run-1-0/0/{first.word}/{first.start}"], path)

    assert list(book) == before
    assert sum(one.word == "started" for one in book) == 2


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_shapes_are_consistent(make: Callable[[Random], Shape]) -> None:
    for seed in range(50):
        shape = make(Random(seed))  # noqa: S311
        document(shape, name="n", image="busybox", ledger="http://l", bucket="s3://b/")
        assert (shape.natural_end == "EXECUTOR_ERROR") == shape.name.startswith("failing")
        assert len(shape.running) >= 1
        assert all(not step.failed for step in shape.running[:-1])
        assert all(len(step.printed("stdout")) < 65536 for step in shape.steps), "executors.logBytes"


def test_document_names_the_keys_that_the_runner_reads() -> None:
    shape = next(made for make in MAKERS if (made := make(Random(1))).name == "data")  # noqa: S311
    posted = document(shape, name="run-1-0", image="busybox", ledger="http://l", bucket="s3://b/")

    assert posted["outputs"] == [{"path": "/out/data", "url": f"s3://b/{output_key('run-1-0')}"}]
    assert posted["inputs"] == [{"path": "/in/data", "url": f"s3://b/{input_key(shape.input or '')}"}]
