"""The services as processes of this machine, with the database and the cluster of a measurement."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import trustme

from poiesis_bench.scale.growth import rss_mib
from poiesis_bench.served_api import CONFIG
from poiesis_e2e.waiting import eventually

NAMESPACE = "scale"
HOST = "localhost"
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
SAMPLE_SECONDS = 1.0

Environment = Callable[[int], Mapping[str, str]]  # of a service that listens on this port


def free_port() -> int:
    """Return a port that no process uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Program:
    """A running service. `port`: where it serves /readyz and /metrics, for the api its requests."""

    name: str
    pid: int
    port: int

    @property
    def url(self) -> str:
        """Return the URL of this port."""
        return f"http://127.0.0.1:{self.port}"

    async def metric(self, client: aiohttp.ClientSession, name: str) -> float | None:
        """Return the first value of a metric; None if it has none, or nothing answers."""
        try:
            async with client.get(f"{self.url}/metrics") as response:
                lines = (await response.text()).splitlines()
        except aiohttp.ClientError:
            return None
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), None)


@dataclass(kw_only=True)
class Settings:
    """What the services share. `folder`: for their files and logs."""

    dsn: str = field(repr=False)
    kubeconfig: Path
    folder: Path
    most_active: int
    gateway_port: int = field(default_factory=free_port)

    @property
    def authority(self) -> Path:
        """Return the file with the authority of the gateway's certificate."""
        return self.folder / "ca.crt"

    def write(self) -> None:
        """Write certificates, the recorder's DSN and the configuration of the api."""
        authority = trustme.CA()
        issued = authority.issue_cert(HOST)
        authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.folder / "tls.crt")
        issued.private_key_pem.write_to_path(self.folder / "tls.key")
        (self.folder / "recorder-dsn").write_text(f"{self.dsn}?options=-c%20role%3Dpoiesis_recorder")

    def api(self, port: int) -> Mapping[str, str]:
        """Return the environment of an api that listens on `port`, and write its configuration."""
        document = json.loads(CONFIG.read_text(encoding="utf-8"))
        document["auth"]["allowAnonymous"] = True
        document["executors"]["defaultResources"] = {"cpu": "10m", "memory": "16Mi"}
        document["gateway"] = {"url": f"https://{HOST}:{self.gateway_port}", "caFile": str(self.authority)}
        document["http"] |= {"host": "127.0.0.1", "port": port, "drainSeconds": 0}
        document["queue"]["maxActiveTasks"] = self.most_active
        document["tasks"]["namespace"] = NAMESPACE
        document["ttlSecondsAfterFinished"] = 3600  # the Pods stay until the end of the measurement
        document["volume"]["type"] = "emptyDir"
        (self.folder / "api.json").write_text(json.dumps(document))
        return {**self._common, "POIESIS_CONFIG": str(self.folder / "api.json")}

    def tctl(self, port: int, name: str) -> Mapping[str, str]:
        """Return the environment of a replica of the controller."""
        return {**self._common, "POD_NAME": name, "POIESIS_HEALTH_PORT": str(port)}

    def gateway(self, port: int) -> Mapping[str, str]:
        """Return the environment of a gateway."""
        return {
            "POIESIS_GATEWAY_DSN_FILE": str(self.folder / "recorder-dsn"),
            "POIESIS_GATEWAY_CERTIFICATE_FILE": str(self.folder / "tls.crt"),
            "POIESIS_GATEWAY_KEY_FILE": str(self.folder / "tls.key"),
            "POIESIS_GATEWAY_PORT": str(self.gateway_port),
            "POIESIS_GATEWAY_HEALTH_PORT": str(port),
        }

    @property
    def _common(self) -> Mapping[str, str]:
        return {"POIESIS_DSN": self.dsn, "POD_NAMESPACE": NAMESPACE, "KUBECONFIG": str(self.kubeconfig)}


@asynccontextmanager
async def running(module: str, name: str, folder: Path, environment: Environment) -> AsyncIterator[Program]:
    """Run a service until the end of the block, ready at its start. It may end earlier."""
    port = free_port()
    env = {**os.environ, **environment(port)}
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", module], env=env, stdout=log, stderr=subprocess.STDOUT
        )
    program = Program(name=name, pid=process.pid, port=port)
    try:
        await _until_ready(f"{program.url}/readyz", process, folder / f"{name}.log")
        yield program
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, STOP_SECONDS)


async def _until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    async with aiohttp.ClientSession() as client:

        async def ready() -> bool:
            if process.poll() is not None:
                text = await asyncio.to_thread(log.read_text)
                raise RuntimeError(f"{url}: exit {process.returncode}\n{text[-2000:]}")
            try:
                async with client.get(url) as response:
                    return response.ok
            except aiohttp.ClientError:
                return False

        await eventually(ready, url, seconds=READY_SECONDS, every=POLL_SECONDS)


class Memory:
    """Samples the resident memory of processes, by name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self.samples: list[dict[str, float]] = []  # `seconds`, and MiB by name

    async def run(self) -> None:
        """Sample until cancelled. A process that has ended is left out."""
        start = time.monotonic()
        while True:
            sample = {"seconds": time.monotonic() - start}
            for name, pid in self._pids.items():
                with suppress(ProcessLookupError):
                    sample[name] = rss_mib(pid)
            self.samples.append(sample)
            await asyncio.sleep(SAMPLE_SECONDS)


def peak(samples: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the largest sample of a process."""
    return max(sample[name] for sample in samples if name in sample)
