"""Reports over HTTPS, with a gateway that misbehaves."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trustme

from poiesis_models.report import Report, ReportResponse
from poiesis_models.states import TesState
from poiesis_trec.config import Gateway
from poiesis_trec.gateway_sink import GatewaySink
from poiesis_trec.sink import ReportRefused, ReportUnavailable

REPORT = Report(pod_uid="0", pod_name="poiesis-x-abcde", node="node-1")
RUNNING = {"state": "RUNNING", "cancel_requested": False, "ended": False}


def http(status: int, body: object, **headers: object) -> bytes:
    """Return a response with the body as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "Content-Length": len(data),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + data


class FakeGateway:
    """Sends the next of `answers` for each request, then closes the connection if the answer is shortened."""

    def __init__(self, *answers: bytes, closes_after_each: bool = False) -> None:
        self.answers = list(answers)
        self.closes_after_each = closes_after_each
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.times: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.heads.append(head)
                self.times.append(asyncio.get_running_loop().time())
                self.bodies.append(await reader.readexactly(size))
                answer = self.answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if self.closes_after_each or b"cut" in answer:
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass  # the recorder has closed the connection
        finally:
            writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def sink_to(
    gateway: FakeGateway,
    tmp_path: Path,
    authority: trustme.CA,
    *,
    name: str = "localhost",
    trusted: trustme.CA | None = None,
) -> AsyncIterator[GatewaySink]:
    """Yield a sink that connects to `gateway`, whose certificate is for `name`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    ca_file, token_file = tmp_path / "ca.crt", tmp_path / "token"
    (trusted or authority).cert_pem.write_to_path(str(ca_file))
    token_file.write_text("the-token\n")
    async with await asyncio.start_server(gateway.serve, "localhost", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        place = Gateway(host="localhost", port=port, ca_file=ca_file)
        sink = GatewaySink(place, uuid4(), token_file)
        try:
            yield sink
        finally:
            await sink.close()


@pytest.fixture
def sink(tmp_path, authority):
    def make(gateway, **options):
        return sink_to(gateway, tmp_path, authority, **options)

    return make


async def test_reports_share_a_connection(sink):
    gateway = FakeGateway(http(200, RUNNING), http(200, RUNNING | {"cancel_requested": True}))
    async with sink(gateway) as one:
        assert not one.is_open
        first = await one.record(REPORT)
        assert one.is_open
        second = await one.record(REPORT)
    assert first == ReportResponse(state=TesState.RUNNING, cancel_requested=False, ended=False)
    assert second.cancel_requested
    assert gateway.connections == 1
    assert gateway.bodies == [REPORT.to_json().encode()] * 2
    head = gateway.heads[0]
    assert head.startswith(f"POST /v1/tasks/{one._task_id}/report HTTP/1.1\r\n")
    assert "Authorization: Bearer the-token\r\n" in head
    assert "Content-Type: application/json\r\n" in head


async def test_chunked_response_keeps_the_connection(sink):
    data = json.dumps(RUNNING).encode()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (
        len(data),
        data,
    )
    gateway = FakeGateway(chunked, http(200, RUNNING))
    async with sink(gateway) as one:
        await one.record(REPORT)
        await one.record(REPORT)
    assert gateway.connections == 1


async def test_connection_closed_while_idle_is_replaced(sink):
    gateway = FakeGateway(http(200, RUNNING), http(200, RUNNING), closes_after_each=True)
    async with sink(gateway) as one:
        await one.record(REPORT)
        assert (await one.record(REPORT)).state is TesState.RUNNING
    assert gateway.connections == 2


async def test_announced_close_is_respected(sink):
    gateway = FakeGateway(http(200, RUNNING, Connection="close"), http(200, RUNNING))
    async with sink(gateway) as one:
        await one.record(REPORT)
        assert not one.is_open
        await one.record(REPORT)
    assert gateway.connections == 2


async def test_gone_is_an_ended_task(sink):
    async with sink(FakeGateway(http(410, RUNNING))) as one:
        assert await one.record(REPORT) == ReportResponse(
            state=TesState.RUNNING, cancel_requested=False, ended=True
        )


@pytest.mark.parametrize(
    ("status", "header", "retry_after"),
    [
        (429, "7", 7),
        (503, "0", 0),
        (503, "1000000", 300),
        (408, None, None),
        (500, "soon", None),
        (502, "-1", None),
        (504, "Fri, 02 Jan 2026 03:04:35 GMT", None),
    ],
)
async def test_overload_is_retried_after_the_given_time(sink, status, header, retry_after):
    headers = {} if header is None else {"Retry_After": header}
    async with sink(FakeGateway(http(status, {"error": "busy"}, **headers))) as one:
        with pytest.raises(ReportUnavailable, match=f"{status}.*busy") as failed:
            await one.record(REPORT)
        assert failed.value.retry_after == retry_after
        assert not one.is_open


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413])
async def test_rejection_is_permanent(sink, status):
    async with sink(FakeGateway(http(status, {"error": "unknown\u0000 task"}))) as one:
        with pytest.raises(ReportRefused, match=f"{status}.*unknown"):
            await one.record(REPORT)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{cut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncut",
        b"HTTP/1.1 200 cut",
        b"cut SSH-2.0\r\n\r\n",
        b"HTTP/1.1 +20 cut\r\n\r\n",
        b"HTTP/1.1 200 cut\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 cut\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 cut\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 cut\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 cut\r\nContent-Length: 100000000\r\n\r\n" + b" " * 100_000,
        b"HTTP/1.1 200 cut\r\n\r\n" + b" " * 100_000,
        http(200, b"<html>cut"),
        http(200, ["cut"]),
        http(200, RUNNING | {"state": "cut"}),
        http(200, RUNNING | {"ended": "cut"}),
        http(200, b"[" * 60_000 + b"cut"),
    ],
    ids=lambda answer: answer[:40].decode() or "nothing",
)
async def test_invalid_response_is_retryable(sink, answer):
    async with sink(FakeGateway(answer, closes_after_each=True)) as one:
        with pytest.raises(ReportUnavailable):
            await one.record(REPORT)


async def test_lost_response_leaves_no_connection(sink):
    gateway = FakeGateway(http(200, RUNNING)[:-5] + b"cut", http(200, RUNNING))
    async with sink(gateway) as one:
        with pytest.raises(ReportUnavailable):
            await one.record(REPORT)
        assert not one.is_open
        assert (await one.record(REPORT)).state is TesState.RUNNING


async def test_untrusted_gateway_gets_no_token(sink):
    gateway = FakeGateway(http(200, RUNNING))
    async with sink(gateway, trusted=trustme.CA()) as one:
        with pytest.raises(ReportUnavailable, match="certificate verify failed"):
            await one.record(REPORT)
    assert gateway.heads == []


async def test_certificate_of_another_name_gets_no_token(sink):
    gateway = FakeGateway(http(200, RUNNING))
    async with sink(gateway, name="other.example") as one:
        with pytest.raises(ReportUnavailable, match="certificate verify failed"):
            await one.record(REPORT)
    assert gateway.heads == []


async def test_renewed_authority_and_token_are_read_for_the_next_connection(sink, tmp_path, authority):
    gateway = FakeGateway(http(200, RUNNING))
    async with sink(gateway, trusted=trustme.CA()) as one:
        with pytest.raises(ReportUnavailable):
            await one.record(REPORT)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        (tmp_path / "token").write_text("renewed")
        await one.record(REPORT)
    assert "Authorization: Bearer renewed\r\n" in gateway.heads[0]


@pytest.mark.parametrize("token", ["two\r\nX: lines", "sch\u00f6n", "\u0007"])
async def test_token_that_is_no_header_is_not_sent(sink, tmp_path, token):
    gateway = FakeGateway(http(200, RUNNING))
    async with sink(gateway) as one:
        (tmp_path / "token").write_text(token)
        with pytest.raises(ReportUnavailable, match="token is not printable") as failed:
            await one.record(REPORT)
    assert gateway.heads == []
    assert token not in str(failed.value)


async def test_canceled_report_closes_the_connection(sink):
    gateway = FakeGateway(http(200, RUNNING)[:-5], b"")  # the rest does not arrive
    async with sink(gateway) as one:
        report = asyncio.create_task(one.record(REPORT))
        while not gateway.bodies:  # noqa: ASYNC110 (what it waits for is in another task)
            await asyncio.sleep(0.01)
        report.cancel()
        await asyncio.wait({report})
        assert report.cancelled()
        assert not one.is_open


async def test_missing_authority_is_retryable(sink, tmp_path):
    async with sink(FakeGateway()) as one:
        (tmp_path / "ca.crt").unlink()
        with pytest.raises(ReportUnavailable, match="FileNotFoundError"):
            await one.record(REPORT)


async def test_recorder_waits_as_long_as_the_gateway_asks(lab, sink):
    gateway = FakeGateway(http(503, {}, Retry_After=1), *[http(200, RUNNING)] * 100)
    async with sink(gateway) as one, lab.recording(gateway=one._gateway):
        lab.helper("executor-0").start()
        await lab.eventually(lambda: asyncio.sleep(0, len(gateway.times) >= 2), True)
    assert 1 <= gateway.times[1] - gateway.times[0] < 3


async def test_wait_in_shutdown_fits_into_the_grace_period(lab, sink):
    gateway = FakeGateway(*[http(429, {}, Retry_After=300)] * 100)
    lab.configure(grace_seconds=5)
    async with sink(gateway) as one, lab.recording(gateway=one._gateway) as stop:
        lab.helper("executor-0").start()
        await lab.eventually(lambda: asyncio.sleep(0, len(gateway.times)), 1)
        stopped_at = asyncio.get_running_loop().time()
        stop.set()
        await lab.eventually(lambda: asyncio.sleep(0, len(gateway.times) >= 3), True, seconds=4)
    assert gateway.times[1] - stopped_at < 1
    assert all(
        later - earlier >= 1 for earlier, later in zip(gateway.times[1:], gateway.times[2:], strict=False)
    )


async def test_gone_task_is_acknowledged(lab, sink):
    gateway = FakeGateway(http(410, RUNNING))
    async with sink(gateway) as one, lab.recording(gateway=one._gateway):
        await lab.eventually(lambda: asyncio.to_thread(lab.config.ack_file.exists), True)
    assert len(gateway.bodies) == 1
    assert lab.config.ack_file.read_text() == "1"
