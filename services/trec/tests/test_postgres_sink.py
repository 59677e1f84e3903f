"""The recorder speaks only to a Postgres whose certificate it can verify."""

import asyncio
import ssl
from contextlib import suppress
from uuid import uuid4

import pytest
import trustme

from poiesis_models.report import Report
from poiesis_trec.postgres_sink import PostgresSink
from poiesis_trec.sink import ReportUnavailable

REPORT = Report(pod_uid="0", pod_name="poiesis-x-abcde", node="node-1")
SSL_REQUEST = bytes(
    [0, 0, 0, 8, 4, 210, 22, 47]
)  # https://www.postgresql.org/docs/17/protocol-message-formats.html


class Impostor:
    """A server on localhost that offers TLS with a certificate of `authority` and keeps what it receives."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self.received: list[bytes] = []
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        writer.write(b"S")
        with suppress(OSError):  # the client rejected the certificate
            await writer.start_tls(self._context)
            self.received.append(await reader.read(1000))
        writer.close()
        self.done.set()


async def _send_report(tmp_path, monkeypatch, *, presented, trusted):
    authority, dsn, token = (tmp_path / name for name in ("ca.crt", "dsn", "token"))
    token.write_text("token")
    trusted.cert_pem.write_to_path(authority)
    monkeypatch.setenv("PGSSLROOTCERT", str(authority))
    impostor = Impostor(presented)
    async with await asyncio.start_server(impostor.serve, "localhost", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dsn.write_text(f"postgresql://poiesis_recorder:password@localhost:{port}/poiesis?sslmode=verify-full")
        with pytest.raises(ReportUnavailable) as refused:
            await PostgresSink(dsn, uuid4(), token).record(REPORT)
        await impostor.done.wait()
    return impostor.received, str(refused.value)


async def test_untrusted_postgres_gets_no_login(tmp_path, monkeypatch):
    received, reason = await _send_report(tmp_path, monkeypatch, presented=trustme.CA(), trusted=trustme.CA())
    assert received == []
    assert "certificate verify failed" in reason


async def test_trusted_postgres_gets_the_login(tmp_path, monkeypatch):
    authority = trustme.CA()
    received, _ = await _send_report(tmp_path, monkeypatch, presented=authority, trusted=authority)
    assert b"poiesis_recorder" in received[0]
