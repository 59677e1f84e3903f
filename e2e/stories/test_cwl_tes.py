"""As a user of cwl-tes I run CWL tools and workflows, with my files on an FTP server."""

import asyncio
import ftplib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from filelock import AsyncFileLock

from poiesis_e2e.command import Outcome, ended
from poiesis_e2e.install import Release
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.little_cpu import little_cpu
from poiesis_e2e.waiting import eventually
from poiesis_lab import clients
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_MARKER = "of cwl-tes"  # occurs in its commands only


@dataclass(frozen=True, kw_only=True)
class Cwl:
    """cwl-tes 0.3.0 in a directory, with a server and an FTP server."""

    program: Path
    folder: Path
    options: tuple[str, ...]

    async def run(self, document: object, job: object) -> Outcome:
        """Run a tool with a job."""
        for name, content in (("tool.json", document), ("job.json", job)):
            (self.folder / name).write_text(json.dumps(content))
        process = await asyncio.create_subprocess_exec(
            self.program,
            *self.options,
            "tool.json",
            "job.json",
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        # After a slow poll cwl-tes increases its delay, up to minutes.
        return await ended(process, 600)


@pytest.fixture
async def cwl(second: Release, second_kube: Kube, node: Node, tmp_path: Path) -> AsyncIterator[Cwl]:
    """Start an FTP server, which Pods reach by this machine's address in docker's network."""
    program = await asyncio.to_thread(clients.environment, "cwl-tes-0.3.0") / "cwl-tes"
    address = await node.host_address()
    async with _one_at_a_time(), _ftp_server(address, tmp_path), little_cpu(second_kube, node, _MARKER):
        yield Cwl(
            program=program,
            folder=tmp_path,
            options=("--tes", f"{second.url}/ga4gh/tes", "--remote-storage-url", f"ftp://{address}"),
        )


@asynccontextmanager
async def _one_at_a_time() -> AsyncIterator[None]:
    """Exclude other workers: cwl-tes supports only the standard FTP port."""
    lock = AsyncFileLock(Path(tempfile.gettempdir()) / "poiesis-e2e-ftp.lock")
    async with lock:
        yield


@asynccontextmanager
async def _ftp_server(address: str, folder: Path) -> AsyncIterator[None]:
    """Run an FTP server with anonymous write access and optional TLS, which cwl-tes uses."""
    stored, pem = folder / "ftp", folder / "ftp.pem"
    stored.mkdir()
    trustme.CA().issue_cert(address).private_key_and_cert_chain_pem.write_to_path(pem)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "pyftpdlib", "--write", "--directory", stored),
        *("--interface", address, "--port", str(ftplib.FTP_PORT)),
        *("--tls", "--certfile", pem, "--keyfile", pem),
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(address, ftplib.FTP_PORT)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(answers, "an FTP server", every=0.05)
        yield
    finally:
        server.terminate()
        await server.wait()


def _tool(image: str, script: str, output: str) -> dict[str, object]:
    return {
        "cwlVersion": "v1.0",
        "class": "CommandLineTool",
        "requirements": {"DockerRequirement": {"dockerPull": image}},
        "baseCommand": ["sh", "-c", script, _MARKER],
        "inputs": {"given": {"type": "File", "inputBinding": {"position": 1}}},
        "outputs": {"made": {"type": "stdout"}},
        "stdout": output,
    }


def _file(folder: Path, content: str) -> dict[str, object]:
    (folder / "words.txt").write_text(content)
    return {"given": {"class": "File", "path": "words.txt"}}


async def test_a_workflow_of_two_tools_gives_its_file(cwl: Cwl, images: Images) -> None:
    sort = _tool(images.busybox, 'sort "$1"', "sorted.txt")
    first = _tool(images.busybox, 'head -n 2 "$1"', "first.txt")
    workflow = {
        "cwlVersion": "v1.0",
        "class": "Workflow",
        "inputs": {"given": "File"},
        "outputs": {"made": {"type": "File", "outputSource": "first/made"}},
        "steps": {
            "sort": {"run": sort, "in": {"given": "given"}, "out": ["made"]},
            "first": {"run": first, "in": {"given": "sort/made"}, "out": ["made"]},
        },
    }

    code, out, err = await cwl.run(workflow, _file(cwl.folder, "pear\napple\nfig\n"))

    assert code == 0, err
    assert json.loads(out)["made"]["basename"] == "first.txt"
    assert (cwl.folder / "first.txt").read_text() == "apple\nfig\n"


async def test_a_tool_that_fails_is_a_permanent_failure(cwl: Cwl, images: Images) -> None:
    tool = _tool(images.busybox, "echo gone wrong >&2; exit 3", "o.txt")

    code, _, err = await cwl.run(tool, _file(cwl.folder, ""))

    assert code == 1
    assert "EXECUTOR_ERROR" in err
    assert "permanentFail" in err
