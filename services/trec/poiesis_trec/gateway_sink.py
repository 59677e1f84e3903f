"""Send reports to the gateway over HTTPS.

A report may be sent again, so a lost response or a connection that the gateway has closed is followed by the
same report. The gateway's certificate and the token may be renewed: both files are read for each connection.
"""

import asyncio
import logging
import ssl
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from poiesis_models.report import Report, ReportResponse
from poiesis_models.runfiles import sanitized
from poiesis_trec.config import Gateway
from poiesis_trec.https import Connection, HttpError, Response, bearer
from poiesis_trec.sink import ReportRefused, ReportUnavailable

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 20.0  # the gateway waits up to 15 s for Postgres
_BODY_SECONDS = 5.0
_BODY_BYTES = 64 * 1024
_ERROR_CHARACTERS = 200
_RETRY_AFTER_SECONDS = 300.0  # at most
_OK, _GONE, _SERVER_ERRORS = 200, 410, 500
_RETRYABLE = frozenset({408, 425, 429})  # and all server errors


class GatewaySink:
    """A ReportSink for the gateway."""

    must_be_closed = False  # the gateway limits its connections itself

    def __init__(self, gateway: Gateway, task_id: UUID, token_file: Path) -> None:
        self._gateway, self._task_id, self._token_file = gateway, task_id, token_file
        self._connection: Connection | None = None
        self._authorization: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Return whether the connection is open."""
        return self._connection is not None

    async def record(self, report: Report) -> ReportResponse:
        """Send a report. Raise ReportUnavailable or ReportRefused."""
        body = report.to_json().encode("utf-8", "replace")
        try:
            response, data = await self._exchange(body)
        except (HttpError, OSError) as error:
            self._drop()
            raise ReportUnavailable(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._drop()
            raise
        if response.status != _OK or not response.keeps_alive:
            self._drop()  # another replica may have more to give
        return _result(response, data)

    async def close(self) -> None:
        """Close the connection."""
        self._drop()

    async def _exchange(self, body: bytes) -> tuple[Response, bytes]:
        """Return the response and its body. Replace a connection that was closed while it was idle."""
        if self._connection is not None:
            try:
                return await self._post(self._connection, body)
            except (HttpError, ConnectionError) as error:
                logger.debug("connecting again: %s", error)
                self._drop()
        return await self._post(await self._connect(), body)

    async def _connect(self) -> Connection:
        self._authorization = bearer(self._token_file.read_text(encoding="ascii", errors="replace").strip())
        tls = ssl.create_default_context(cafile=str(self._gateway.ca_file))
        self._connection = await Connection.open(self._gateway.host, self._gateway.port, tls)
        return self._connection

    async def _post(self, connection: Connection, body: bytes) -> tuple[Response, bytes]:
        response = await connection.request(
            "POST",
            f"/v1/tasks/{self._task_id}/report",
            self._authorization,
            body=body,
            seconds=_REPORT_SECONDS,
        )
        async with asyncio.timeout(_BODY_SECONDS):
            return response, await response.body(_BODY_BYTES)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def _result(response: Response, data: bytes) -> ReportResponse:
    """Return the result of a report. Raise ReportUnavailable or ReportRefused."""
    if response.status in {_OK, _GONE}:
        try:
            result = ReportResponse.from_json(data)
        except ValueError as error:
            raise ReportUnavailable(f"HTTP {response.status} with an invalid body: {error}") from error
        # 410: nothing of this Pod is recorded any more, so for this recorder the task has ended.
        return replace(result, ended=True) if response.status == _GONE else result
    reason = f"HTTP {response.status} {sanitized(data.decode(errors='replace'))[:_ERROR_CHARACTERS]}".strip()
    if response.status >= _SERVER_ERRORS or response.status in _RETRYABLE:
        raise ReportUnavailable(reason, retry_after=_retry_after(response.headers.get("retry-after", "")))
    raise ReportRefused(reason)


def _retry_after(value: str) -> float | None:
    """Return the seconds of Retry-After, limited; None if the header is absent or not a number of seconds."""
    if not value.isascii() or not value.isdigit():
        return None
    return min(float(value), _RETRY_AFTER_SECONDS)
