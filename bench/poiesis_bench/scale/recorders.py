"""A stand-in for the recorders of simulated Pods: it sends their reports to the gateway.

Each report takes the path of a real one: the token of the task's Secret, the recorder's own client, a new TLS
connection, the gateway, Postgres.
"""

import asyncio
import base64
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from poiesis_models.labels import executor_name
from poiesis_models.report import ExecutorReport, Report
from poiesis_models.run_all import run_all
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl.informer import Informer
from poiesis_tctl.kube import Kube
from poiesis_trec.config import Gateway
from poiesis_trec.gateway_sink import GatewaySink
from poiesis_trec.sink import ReportUnavailable

AT_ONCE = 16
RETRY_SECONDS = 1.0
EVICTED = {"status": {"phase": "Failed", "reason": "Evicted", "message": "evicted by the measurement"}}
_STATES = {"running": TesState.RUNNING, "terminated": TesState.COMPLETE}
_VOLUME = "recorder"  # with the token

Pod = Mapping[str, Any]


class Recorders:
    """Reports what the status of each Pod shows, once for each state. `folder`: for tokens in use."""

    def __init__(self, kube: Kube, gateway: Gateway, folder: Path) -> None:
        self._kube, self._gateway, self._folder = kube, gateway, folder
        self._changed: asyncio.Queue[str] = asyncio.Queue()
        self._pods = Informer(kube, kube.path("Pod"), changed=self._changed.put_nowait, slim=slim)
        self._reported: dict[str, TesState] = {}
        self.milliseconds: list[float] = []  # of each report, with its retries
        self.evicted_at: dict[str, float] = {}  # Unix time, by task

    async def run(self) -> None:
        """Report until cancelled."""
        await run_all([self._pods.run(), *(self._work() for _ in range(AT_ONCE))])

    def running(self) -> list[str]:
        """Return the tasks whose executor was reported to run, and not to have ended."""
        return [task for task, state in self._reported.items() if state is TesState.RUNNING]

    async def evict(self, task: str) -> None:
        """Play the kubelet that evicts a running Pod. Its recorder reports nothing from now on."""
        pod = self._pods.cache.current(task)
        if pod is not None and self._reported[task] is TesState.RUNNING:
            self.evicted_at[task] = time.time()
            await self._kube.patch("Pod", f"{pod['metadata']['name']}/status", EVICTED)

    async def _work(self) -> None:
        while True:
            task = await self._changed.get()
            pod = self._pods.cache.current(task)
            if pod is None or task in self.evicted_at:
                continue
            state = _STATES.get(pod["executor"])
            if state is not None and self._reported.get(task) != state:
                self._reported[task] = state
                await self._send(task, pod, state)

    async def _send(self, task: str, pod: Pod, state: TesState) -> None:
        secret = await self._kube.read("Secret", pod["secret"])
        token = self._folder / task
        token.write_bytes(base64.b64decode(secret["data"]["token"]))
        sink = GatewaySink(self._gateway, UUID(task), token)
        start = time.perf_counter()
        while True:
            try:
                await sink.record(report(pod, state))
                break
            except ReportUnavailable as error:
                await asyncio.sleep(error.retry_after or RETRY_SECONDS)
        self.milliseconds.append((time.perf_counter() - start) * 1000)
        await sink.close()
        token.unlink()


def slim(pod: Pod) -> Pod:
    """Return what a report needs: identity, the state of the executor, the name of the Secret."""
    metadata = pod["metadata"]
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    states = {one["name"]: next(iter(one["state"]), "waiting") for one in statuses}
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    sources = volumes[_VOLUME]["projected"]["sources"]
    kept = ("name", "uid", "labels", "resourceVersion", "creationTimestamp")
    return {
        "metadata": {name: metadata[name] for name in kept},
        "node": pod["spec"].get("nodeName", ""),
        "executor": states.get(executor_name(0), "waiting"),
        "secret": next(one["secret"]["name"] for one in sources if "secret" in one),
    }


def report(pod: Pod, state: TesState) -> Report:
    """Return the recorder's report of an executor that runs (RUNNING) or has succeeded (COMPLETE)."""
    now = time.time_ns()
    done = state is TesState.COMPLETE
    executor = ExecutorReport(
        index=0,
        start_ns=now,
        end_ns=now if done else None,
        exit_code=0 if done else None,
        stdout="done\n" if done else None,
    )
    return Report(
        pod_uid=pod["metadata"]["uid"],
        pod_name=pod["metadata"]["name"],
        node=pod["node"],
        state=TesState.RUNNING,
        executors=(executor,),
        ending=TaskOutcome(state=TesState.COMPLETE) if done else None,
    )
