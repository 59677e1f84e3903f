"""The services' clients of the cluster, with a gate before each request, and the contents of a Pod."""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import aiohttp
import asyncpg
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from races_cluster import Cluster, KubeletPod, Object, stdout_of
from races_postgres import GatedConnection
from races_scheduler import Process

from poiesis_api.kube import Kubernetes
from poiesis_gateway.config import Config as GatewayConfig
from poiesis_gateway.errors import HTTP_STATUS, GatewayError
from poiesis_gateway.reports import Reports
from poiesis_gateway.reports_db import ReportsDb
from poiesis_kube.errors import Refused, Unreachable
from poiesis_models.labels import TASK_LABEL
from poiesis_models.run_all import run_all
from poiesis_models.runfiles import STDOUT, SentOutput
from poiesis_tctl.kube import Kube
from poiesis_trec.config import Config, Gateway, KubernetesApi, PodRef
from poiesis_trec.facts import NO_RUN_FILES, PodView, RunFiles
from poiesis_trec.gateway_sink import GatewaySink
from poiesis_trec.https import Connection, Response, bearer
from poiesis_trec.podwatch import NoPodStatus, PodUnknown, PodWatch
from poiesis_trec.postgres_sink import PostgresSink
from poiesis_trec.recorder import Recorder, _OutOfTime, _until_time_is_up
from poiesis_trec.regular import Signature
from poiesis_trec.rundir import RunDirectories
from poiesis_trec.sink import ReportSink

_KINDS = {"pods": "Pod", "jobs": "Job", "events": "Event"}  # no Event ever arrives
_HTTP_NOT_FOUND = 404
_GATEWAY = Gateway(host="", port=1, ca_file=Path())
_GATEWAY_CONFIG = GatewayConfig(
    POIESIS_GATEWAY_DSN_FILE=Path(), POIESIS_GATEWAY_CERTIFICATE_FILE=Path(), POIESIS_GATEWAY_KEY_FILE=Path()
)


class ApiKubernetes(Kubernetes):
    """The Kubernetes client of an api replica."""

    def __init__(self, process: Process, cluster: Cluster) -> None:
        self._process, self._cluster = process, cluster

    async def create(self, manifest: Object) -> Object:
        return await self._request(f"create {manifest['kind']}", lambda: self._create(manifest))

    async def read(self, kind: str, name: str) -> Object:
        return await self._request(f"read {kind}", lambda: copy.deepcopy(self._found(kind, name)))

    async def unsuspend(self, job: str) -> None:
        await self._request("unsuspend Job", lambda: self._unsuspend(job))

    async def delete_job(self, job: str) -> None:
        await self._request("delete Job", lambda: _delete_job(self._cluster, job))

    def _create(self, manifest: Object) -> Object:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if self._cluster.get(kind, name) is not None:
            raise Refused(409, "AlreadyExists", f"{kind} {name} already exists")
        return copy.deepcopy(self._cluster.put(kind, manifest))

    def _found(self, kind: str, name: str) -> Object:
        found = self._cluster.get(kind, name)
        if found is None:
            raise Refused(_HTTP_NOT_FOUND, "NotFound", f"{kind} {name} not found")
        return found

    def _unsuspend(self, name: str) -> Object:
        job = self._found("Job", name)
        return self._cluster.put("Job", {**job, "spec": {**job["spec"], "suspend": False}})

    async def _request(self, what: str, carry_out: Callable[[], Any]) -> Any:
        return await self._process.scheduler.request(self._process, what, _later(carry_out), Unreachable)


class ControllerKube(Kube):
    """The Kubernetes client of a controller: the test decides how far its watches lag behind."""

    def __init__(self, process: Process, cluster: Cluster) -> None:
        self._process, self._cluster = process, cluster
        self.namespace = "tasks"
        self._news = asyncio.Event()

    def notify(self) -> None:
        """Wake the watches after a change."""
        self._news.set()

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:  # noqa: ARG002
        return cast(
            "Object",
            await self._request(
                f"list {_kind(collection)}s",
                lambda: {
                    "metadata": {"resourceVersion": self._cluster.version},
                    "items": copy.deepcopy(self._cluster.of_kind(_kind(collection))),
                },
            ),
        )

    @asynccontextmanager
    async def watch(
        self,
        collection: str,
        params: Mapping[str, str],
        *,
        silence: float,  # noqa: ARG002
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._events(_kind(collection), int(params["resourceVersion"]))

    async def _events(self, kind: str, version: int) -> AsyncIterator[bytes]:
        while True:
            if not self._since(kind, version):
                self._news.clear()
                await self._news.wait()
                continue
            fate = await self._process.scheduler.gate(self._process, f"watch {kind}s", Unreachable)
            for version, event, item in self._since(kind, version):  # noqa: B020, PLR1704, B007
                yield json.dumps({"type": event, "object": item}).encode()
            self._process.scheduler.after(self._process, fate, "watch", Unreachable)

    def _since(self, wanted: str, version: int) -> list[tuple[int, str, Object]]:
        return [
            (number, event, item)
            for number, kind, event, item in self._cluster.history
            if number > version and kind == wanted
        ]

    async def pods_of(self, task_id: str) -> list[Mapping[str, Any]]:
        return await self._of("Pod", task_id)

    async def jobs_of(self, task_id: str) -> list[Mapping[str, Any]]:
        return await self._of("Job", task_id)

    async def create_if_missing(self, manifest: Mapping[str, Any]) -> None:
        await self._create(manifest["kind"], manifest)

    async def end_pod(self, name: str, uid: str) -> None:
        await self._request("end Pod", lambda: self._end_pod(name, uid))

    async def delete_job(self, name: str, uid: str) -> None:
        await self._request("delete Job", lambda: _delete_job(self._cluster, name, uid))

    async def delete_pod(self, name: str, uid: str) -> None:
        await self._request("delete Pod", lambda: self._delete_pod(name, uid))

    async def events_of(self, uid: str, **fields: str) -> list[Mapping[str, Any]]:  # noqa: ARG002
        return []

    async def _of(self, kind: str, task_id: str) -> list[Mapping[str, Any]]:
        found = await self._request(
            f"read {kind}s of a task",
            lambda: [
                copy.deepcopy(item)
                for item in self._cluster.of_kind(kind)
                if item["metadata"]["labels"][TASK_LABEL] == task_id
            ],
        )
        return cast("list[Mapping[str, Any]]", found)

    async def _create(self, kind: str, item: Mapping[str, Any]) -> None:
        def create() -> None:
            if self._cluster.get(kind, item["metadata"]["name"]) is None:
                self._cluster.put(kind, dict(item))

        await self._request(f"create {kind}", create)

    def _end_pod(self, name: str, uid: str) -> None:
        pod = self._cluster.get("Pod", name)
        if pod is not None and pod["metadata"]["uid"] == uid:
            self._cluster.put("Pod", {**pod, "spec": {**pod["spec"], "activeDeadlineSeconds": 1}})

    def _delete_pod(self, name: str, uid: str) -> None:
        pod = self._cluster.get("Pod", name)
        if pod is not None and pod["metadata"]["uid"] == uid:
            self._cluster.delete_pod(name)

    async def _request(self, what: str, carry_out: Callable[[], Any]) -> Any:
        return await self._process.scheduler.request(self._process, what, _later(carry_out), Unreachable)


class PodFiles:
    """The run directories of a Pod, like RunDirectories."""

    unconfirmed = False

    def __init__(self, pod: KubeletPod) -> None:
        self._pod = pod

    @property
    def files(self) -> Mapping[str, RunFiles]:
        return {name: self._pod.files.get(name, NO_RUN_FILES) for name in self._pod.plan}

    def refresh(self, *, everything: bool) -> None:
        """Do nothing: the files are always current."""

    def outputs_stored(self, name: str, stored: Sequence[SentOutput]) -> None:
        """Do nothing: there are no outputs."""

    def __getitem__(self, name: str) -> "ContainerFiles":
        return ContainerFiles(self._pod, name)


class ContainerFiles:
    """The logs of one executor."""

    outputs: tuple[SentOutput, ...] = ()

    def __init__(self, pod: KubeletPod, name: str) -> None:
        self._pod, self._name = pod, name

    @property
    def files(self) -> RunFiles:
        return self._pod.files.get(self._name, NO_RUN_FILES)

    @property
    def logs(self) -> dict[str, Signature]:
        if self.files.started is None:
            return {}
        return {STDOUT: Signature(1, 1, 1)}

    def log(self, stream: str) -> tuple[bytes, Signature]:  # noqa: ARG002
        return stdout_of(self._pod.plan.executors.index(self._name)).encode(), Signature(1, 1, 1)


class SimulatedWatch(PodWatch):
    """The Pod in the API server, once the recorder may read it."""

    def __init__(self, pod: KubeletPod, cluster: Cluster) -> None:
        self._pod, self._cluster = pod, cluster

    @property
    def view(self) -> PodView | None:
        item = self._cluster.get("Pod", self._pod.name)
        if item is None or self._cluster.get("RoleBinding", self._pod.name) is None:
            return None
        return PodView.from_json(item)

    async def fetch(self) -> PodView:
        view = self.view
        if view is None:
            raise PodUnknown("forbidden")
        return view


class PodRecorder:
    """The recorder of one Pod, from its start to its end."""

    def __init__(
        self,
        process: Process,
        pod: KubeletPod,
        cluster: Cluster,
        connection: asyncpg.Connection,
        folder: Path,
        *,
        transport: str,
    ) -> None:
        self.process, self.pod = process, pod
        token_file = folder / f"{pod.uid}-token"
        token_file.write_bytes(base64.b64decode(pod.token))
        self._connection, self._cluster = connection, cluster
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        self.config = Config(
            task_id=pod.task_id,
            plan=pod.plan,
            pod=PodRef(name=pod.name, uid=pod.uid, namespace="tasks", node="node-1"),
            token_file=token_file,
            gateway=_GATEWAY if transport == "gateway" else None,
            dsn_file=folder / "dsn",
            runs=folder,
            ack_file=folder / pod.uid,
            rescue_file=folder / f"{pod.uid}-rescue",
            kubernetes=KubernetesApi(host="", port=1, token_file=folder, ca_file=folder),
        )

    def start(self) -> None:
        self.process.spawn(self._run(), "recorder")

    def look(self) -> None:
        """Let the recorder check for changes in the Pod."""
        if self.pod.trec_signaled:
            self._stop.set()
        self._changed.set()

    async def _run(self) -> None:
        """Run like `recorder.run`, with simulated files, watch and connection."""
        config = self.config
        sink: ReportSink = _PostgresSink(config, self.process, self._connection)
        if config.gateway is not None:
            sink = _GatewaySink(config, self.process, self._connection)
        recorder = Recorder(
            config,
            runs=cast("RunDirectories", PodFiles(self.pod)),
            status=NoPodStatus() if config.plan.files_only else SimulatedWatch(self.pod, self._cluster),
            sink=sink,
            changed=self._changed,
            stop=self._stop,
        )
        time = _until_time_is_up(self._stop, self._changed, config)
        with suppress(_OutOfTime):
            await run_all([recorder.record()], [time])
        await self._stop.wait()


class _PostgresSink(PostgresSink):
    """Connects without a DSN."""

    def __init__(self, config: Config, process: Process, connection: asyncpg.Connection) -> None:
        super().__init__(config.dsn_file, config.task_id, config.token_file)
        self._token = config.token_file.read_text()
        self._process, self._shared = process, connection

    async def _call(self, report: Any) -> Any:
        self._connection = GatedConnection(self._process, self._shared)
        return await super()._call(report)


class _GatewaySink(GatewaySink):
    """Connects without TLS."""

    def __init__(self, config: Config, process: Process, connection: asyncpg.Connection) -> None:
        super().__init__(_GATEWAY, config.task_id, config.token_file)
        self._token = config.token_file.read_text()
        loop = asyncio.get_running_loop()
        database = ReportsDb(_OnePool(connection), seconds=10)
        reports = Reports(database=database, config=_GATEWAY_CONFIG, clock=loop.time)
        self._gateway_connection = _GatewayConnection(process, reports)

    async def _connect(self) -> Connection:
        self._authorization = bearer(self._token)
        self._connection = cast("Connection", self._gateway_connection)
        return self._connection


class _GatewayConnection:
    """A request to the gateway's real code behind a gate, without its HTTP server."""

    def __init__(self, process: Process, reports: Reports) -> None:
        self._process, self._reports = process, reports

    async def request(self, method: str, target: str, headers: Mapping[str, str], **options: Any) -> Response:
        payload = aiohttp.StreamReader(MagicMock(), 2**16, loop=asyncio.get_running_loop())
        payload.feed_data(options["body"])
        payload.feed_eof()
        task_id = target.removeprefix("/v1/tasks/").removesuffix("/report")
        request = make_mocked_request(
            method, target, dict(headers), match_info={"id": task_id}, payload=payload
        )
        status, document = await self._process.scheduler.request(
            self._process, "record_report", lambda: self._apply(request), _lost
        )
        reader = asyncio.StreamReader()
        reader.feed_data(data := json.dumps(document).encode())
        return Response(status=status, reason="", headers={"content-length": str(len(data))}, reader=reader)

    async def _apply(self, request: web.Request) -> tuple[int, object]:
        try:
            result = await self._reports.apply(request, "10.0.0.1")
        except GatewayError as error:
            return HTTP_STATUS[type(error)], {"error": str(error)}
        return 410 if result.closed else 200, json.loads(result.response.to_json())

    def abort(self) -> None:
        """Do nothing: there is no socket."""


class _OnePool:
    """The gateway's pool: the shared connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        yield self._connection


def _lost(what: str) -> Exception:
    return ConnectionResetError(f"connection lost during {what}")


def _delete_job(cluster: Cluster, name: str, uid: str | None = None) -> None:
    job = cluster.get("Job", name)
    if job is not None and uid in {None, job["metadata"]["uid"]}:
        cluster.remove("Job", name)


def _later(carry_out: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def work() -> Any:
        return carry_out()

    return work


def _kind(collection: str) -> str:
    return _KINDS[collection.rsplit("/", 1)[-1]]
