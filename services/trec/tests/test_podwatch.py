"""The watch with a misbehaving API server, and the recorder's use of the Pod's status."""

import asyncio
import json
import ssl
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from poiesis_models.plan import PodPlan
from poiesis_trec.config import KubernetesApi, PodRef
from poiesis_trec.podwatch import NoPodStatus, PodUnknown, PodWatch

POD = PodRef(name="poiesis-x-abcde", uid="uid-1", namespace="tasks", node="node-1")
PATH = "/api/v1/namespaces/tasks/pods"
ONE = PodPlan(executors=("executor-0",), ignore_error=(False,), upload_on_error=False)
TWO = PodPlan(executors=("executor-0", "executor-1"), ignore_error=(False, False), upload_on_error=False)


def make_certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1: ca.crt and key.pem."""
    directory.mkdir()
    files = ["-keyout", directory / "key.pem", "-out", directory / "ca.crt"]
    subject = ["-subj", "/CN=fake", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "ours")


class FakeApi:
    """Responds to each watch with the next of `answers`, the last one repeatedly."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.pod = None

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    async def get(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.pod is None:
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        return web.json_response(self.pod)

    @asynccontextmanager
    async def serve(self, certificate: Path, tmp_path: Path):
        app = web.Application()
        app.router.add_get(PATH, self.watch)
        app.router.add_get(f"{PATH}/{POD.name}", self.get)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate / "ca.crt", certificate / "key.pem")
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        (tmp_path / "token").write_text("secret-1\n")
        port = runner.addresses[0][1]
        try:
            yield KubernetesApi(
                host="127.0.0.1",
                port=port,
                token_file=tmp_path / "token",
                ca_file=certificate / "ca.crt",
            )
        finally:
            await runner.cleanup()


def pod(*init, deleted=False):
    metadata = {"name": POD.name} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})
    return {"metadata": metadata, "status": {"phase": "Pending", "initContainerStatuses": list(init)}}


def waiting(name, reason, message=""):
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


def terminated(name, code, reason, message=""):
    state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}
    return {"name": name, "state": {"terminated": state}}


def responds(status):
    async def answer(request):
        return web.json_response({"kind": "Status", "code": status}, status=status)

    return answer


def events(*lines, then=None):
    """Send the lines in pieces of other lengths; then end, or wait for `then`."""

    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        for start in range(0, len(data), 100):
            await response.write(data[start : start + 100])
        if then is not None:
            await then.wait()
        return response

    return answer


async def hangs_up(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"type": "ADDED", "obj')
    request.transport.abort()
    return response


def added(pod):
    return {"type": "ADDED", "object": pod}


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


async def test_watch_survives_all_api_server_failures(certificate, tmp_path):
    changed, forever = asyncio.Event(), asyncio.Event()
    back_off = pod(waiting("executor-0", "ImagePullBackOff", "Back-off pulling image"))
    api = FakeApi(responds(403), events(GONE), hangs_up, responds(500), events(added(back_off), then=forever))
    async with api.serve(certificate, tmp_path) as where:
        watch = PodWatch(where, POD, changed)
        task = asyncio.create_task(watch.run())
        async with asyncio.timeout(20):
            await changed.wait()
        task.cancel()
        await asyncio.wait({task})
        forever.set()
    assert watch.view is not None
    assert watch.view.waits["executor-0"].reason == "ImagePullBackOff"
    assert len(api.requests) == 5
    assert {request.query["fieldSelector"] for request in api.requests} == {f"metadata.name={POD.name}"}


async def test_token_is_read_for_each_connection(certificate, tmp_path):
    async def rotates(request):
        (tmp_path / "token").write_text("secret-2")
        return web.json_response({}, status=401)

    changed, forever = asyncio.Event(), asyncio.Event()
    api = FakeApi(rotates, events(added(pod(waiting("pause", "ErrImagePull"))), then=forever))
    async with api.serve(certificate, tmp_path) as where:
        task = asyncio.create_task(PodWatch(where, POD, changed).run())
        async with asyncio.timeout(10):
            await changed.wait()
        task.cancel()
        await asyncio.wait({task})
        forever.set()
    assert [one.headers["Authorization"] for one in api.requests] == ["Bearer secret-1", "Bearer secret-2"]


async def test_forbidden_pod_is_unknown(certificate, tmp_path):
    api = FakeApi(responds(403))
    async with api.serve(certificate, tmp_path) as where:
        watch = PodWatch(where, POD, asyncio.Event())
        with pytest.raises(PodUnknown, match="HTTP 403"):
            await watch.fetch()
        api.pod = pod(terminated("executor-0", 137, "OOMKilled"))
        assert (await watch.fetch()).ends["executor-0"].reason == "OOMKilled"
    with pytest.raises(PodUnknown):
        await watch.fetch()


async def test_poll_ends_when_the_condition_holds(certificate, tmp_path):
    api = FakeApi(responds(403))
    async with api.serve(certificate, tmp_path) as where:
        watch = PodWatch(where, POD, asyncio.Event())
        asyncio.get_running_loop().call_later(
            0.3, setattr, api, "pod", pod(terminated("executor-0", 137, "OOMKilled"))
        )
        assert await watch.poll(lambda view: "executor-0" in view.ends)
        assert not await watch.poll(lambda view: "executor-1" in view.ends)


async def test_unknown_status_is_not_polled():
    status = NoPodStatus()
    await status.run()
    assert not await status.poll(lambda _: True)
    assert status.view is None


async def test_untrusted_server_gets_no_token(certificate, tmp_path):
    api = FakeApi(responds(200))
    other = make_certificate(tmp_path / "other")
    async with api.serve(certificate, tmp_path) as where:
        stranger = KubernetesApi(
            host=where.host, port=where.port, token_file=where.token_file, ca_file=other / "ca.crt"
        )
        with pytest.raises(PodUnknown, match="CERTIFICATE_VERIFY_FAILED"):
            await PodWatch(stranger, POD, asyncio.Event()).fetch()
    assert api.requests == []


@pytest.mark.integration
async def test_waiting_containers_are_reported_once(certificate, tmp_path, lab, task):
    forever, first_reported = asyncio.Event(), asyncio.Event()
    first = pod(waiting("executor-0", "ErrImagePull", "a: not found"))
    again = waiting("executor-0", "ImagePullBackOff", "Back-off pulling image a: a: not found")
    later = pod(again, waiting("pause", "CreateContainerError", "last"))
    api = FakeApi(events(added(first), then=first_reported), events(added(later), then=forever))
    async with api.serve(certificate, tmp_path) as where, lab.recording(plan=ONE, kubernetes=where):

        async def messages():
            lines = [text.partition(": ") for text in await task.system_logs()]
            return [text for name, _, text in lines if name in {"executor-0", "pause"}]

        await lab.eventually(messages, ["ErrImagePull: a: not found"])
        first_reported.set()
        await lab.eventually(messages, ["ErrImagePull: a: not found", "CreateContainerError: last"])
        forever.set()


@pytest.mark.integration
@pytest.mark.parametrize("role", ["watch", "get"])
async def test_oom_killed_helper_is_explained_by_the_pod(certificate, tmp_path, lab, task, role):
    """By the watch, or by a read in shutdown if the right to watch came too late."""
    forever = asyncio.Event()
    api = FakeApi(responds(403))
    async with (
        api.serve(certificate, tmp_path) as where,
        lab.recording(plan=ONE, kubernetes=where) as stop,
    ):
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        one.write("stderr", b"allocating\n")
        one.killed()
        dead = pod(terminated("executor-0", 137, "OOMKilled"))
        if role == "watch":
            api.answers = [events(added(dead), then=forever)]
        else:
            api.pod = dead
            stop.set()
        await lab.eventually(task.state, "EXECUTOR_ERROR", 35)
        forever.set()
    assert (await task.row())["reason"] == "OOMKilled"
    assert await task.executors() == [(0, 137, True, "", "allocating\n")]


@pytest.mark.integration
async def test_unexplained_helper_is_left_to_the_controller(certificate, tmp_path, lab, task):
    api = FakeApi(responds(403))
    async with (
        api.serve(certificate, tmp_path) as where,
        lab.recording(plan=ONE, kubernetes=where) as stop,
    ):
        one = lab.helper("executor-0").start()
        await lab.eventually(task.state, "RUNNING")
        one.killed()
        stop.set()
    assert await task.state() == "RUNNING"


@pytest.mark.integration
@pytest.mark.parametrize("started", [True, False])
async def test_without_status_an_unknown_end_is_left_to_the_controller(lab, task, started):
    """Without a delay: there is nothing to poll."""
    async with lab.recording(plan=ONE, kubernetes=None) as stop:
        await lab.eventually(task.state, "INITIALIZING")
        if started:
            one = lab.helper("executor-0").start()
            await lab.eventually(task.state, "RUNNING")
            one.write("stdout", b"partly\n")
            one.killed()
        began = asyncio.get_running_loop().time()
        stop.set()
    assert asyncio.get_running_loop().time() - began < 2
    assert (await task.row())["reported_by"] is None
    assert [row[3] for row in await task.executors()] == (["partly\n"] if started else [])


@pytest.mark.integration
async def test_unstarted_executor_is_reported_during_shutdown(certificate, tmp_path, lab, task):
    api = FakeApi(responds(403))
    async with (
        api.serve(certificate, tmp_path) as where,
        lab.recording(plan=ONE, kubernetes=where) as stop,
    ):
        await lab.eventually(task.state, "INITIALIZING")
        api.pod = pod(terminated("executor-0", 128, "StartError", "no such directory"))
        stop.set()
        await lab.eventually(task.state, "SYSTEM_ERROR")
    row = await task.row()
    assert (row["reason"], row["reported_by"]) == ("StartError", "recorder")


@pytest.mark.integration
@pytest.mark.parametrize("ended_by", ["deletion", "cancel of a running executor"])
async def test_deleted_pod_is_not_polled_for_long(certificate, tmp_path, lab, task, ended_by):
    api = FakeApi(responds(403))
    api.pod = pod(deleted=True)
    async with (
        api.serve(certificate, tmp_path) as where,
        lab.recording(plan=TWO, kubernetes=where) as stop,
    ):
        await lab.eventually(task.state, "INITIALIZING")
        one = lab.helper("executor-0")
        if ended_by != "deletion":
            one.start()
            await lab.eventually(task.state, "RUNNING")
            one.end(143, signal=15, term=True)
        began = asyncio.get_running_loop().time()
        stop.set()
    assert asyncio.get_running_loop().time() - began < 2
    asked = [request for request in api.requests if "watch" not in request.query]
    assert len(asked) == (1 if ended_by == "deletion" else 0)
