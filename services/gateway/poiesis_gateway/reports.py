"""The one operation: apply a recorder's report to its task.

The order of the checks makes refusals cheap: the body is read only after Postgres has accepted the token, so
a client without a token can use neither memory nor more than a share of the database connections.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from aiohttp import hdrs, web

from poiesis_gateway.bodies import Incoming
from poiesis_gateway.config import Config
from poiesis_gateway.errors import AddressLimited, RateLimited, UnknownToken
from poiesis_gateway.line import Line
from poiesis_gateway.reports_db import Result
from poiesis_gateway.tokens import AcceptedTokens
from poiesis_models.rates import TokenBuckets

ADDRESSES = 10_000  # most addresses and tasks whose rates are remembered
TASKS = 20_000
_BODIES = 8  # of the longest size that fit into the default budget
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_BEARER = re.compile(r"(?i:bearer) +([!-~]{1,256})")


class Database(Protocol):
    """What is needed of `reports_db.ReportsDb`."""

    async def access(self, task_id: UUID, token: str) -> Result | None:
        """Return the task, or None if the token is not valid for it."""

    async def report(self, task_id: UUID, token: str, body: bytearray) -> Result | None:
        """Apply a report. Return None if the token is not valid for the task."""


@dataclass(kw_only=True)
class Reports:
    """Applies reports, within the bounds of `config`."""

    database: Database
    config: Config
    clock: Callable[[], float] = time.monotonic
    tokens: AcceptedTokens = field(default_factory=AcceptedTokens)

    def __post_init__(self) -> None:
        config = self.config
        self.incoming = Incoming(
            most_bytes=config.incoming_bytes or _BODIES * config.body_bytes,
            body_bytes=config.body_bytes,
            body_seconds=config.body_seconds,
        )
        self.line = Line(
            places=config.database_connections, waiting=config.waiting, seconds=config.waiting_seconds
        )
        # Tokens that are not known yet: invalid ones must leave places for reports.
        self._unknown = Line(
            places=max(1, config.database_connections // 4),
            waiting=config.waiting,
            seconds=config.waiting_seconds,
        )
        self._tasks = TokenBuckets(
            per_second=config.reports_per_second, burst=config.reports_burst, keys=TASKS
        )
        self._addresses = TokenBuckets(
            per_second=config.attempts_per_second, burst=config.attempts_burst, keys=ADDRESSES
        )

    async def apply(self, request: web.Request, address: str) -> Result:
        """Return the task after the report. Raise GatewayError."""
        try:
            return await self._apply(request, address)
        except UnknownToken:
            self._addresses.take(address, self.clock())
            raise

    async def _apply(self, request: web.Request, address: str) -> Result:
        task_id, token = task_of(request), token_of(request)
        if task_id is None or token is None:
            self._check_address(address)
            raise UnknownToken
        if not self.tokens.has(task_id, token):
            self._check_address(address)
            result = await self._access(task_id, token)
            if result.closed:
                return result
        self._take(task_id)
        self.incoming.check_head(request)
        with self.incoming.budget() as budget:
            body = await self.incoming.read(request, budget)
            async with self.line.place():
                applied = await self.database.report(task_id, token, body)
        if applied is None:
            self.tokens.remove(task_id, token)
            raise UnknownToken
        return applied

    async def _access(self, task_id: UUID, token: str) -> Result:
        """Return the task of a token that is not known yet."""
        async with self._unknown.place(), self.line.place():
            result = await self.database.access(task_id, token)
        if result is None:
            raise UnknownToken
        self.tokens.add(task_id, token)
        return result

    def _check_address(self, address: str) -> None:
        """Raise AddressLimited after too many invalid tokens of one address."""
        wait = self._addresses.wait(address, self.clock())
        if wait > 0:
            raise AddressLimited("too many invalid tokens from this address", wait)

    def _take(self, task_id: UUID) -> None:
        wait = self._tasks.take(str(task_id), self.clock())
        if wait > 0:
            raise RateLimited(
                f"too many reports of this task: {self.config.reports_per_second:g} per second, "
                f"{self.config.reports_burst} in a burst",
                wait,
            )


def task_of(request: web.Request) -> UUID | None:
    """Return the task's id of the path; None if it is no UUID."""
    text = request.match_info["id"]
    return UUID(text) if _UUID.fullmatch(text) else None


def token_of(request: web.Request) -> str | None:
    """Return the bearer token (RFC 6750, 2.1); None without one header of that form."""
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return match[1] if match else None
