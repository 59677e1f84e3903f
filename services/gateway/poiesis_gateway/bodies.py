"""Read the body of a report within its bounds in bytes, seconds and JSON values."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientPayloadError, hdrs, web

from poiesis_gateway.errors import BodyTooLarge, BodyTooSlow, Busy, MalformedReport

JSON_VALUES = 200_000  # of one report: 10,000 outputs of three fields each are 70,000
_STRING = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+"')


class Incoming:
    """The budget of one replica for the bodies of all reports in progress."""

    def __init__(self, *, most_bytes: int, body_bytes: int, body_seconds: float) -> None:
        self._most_bytes, self._body_bytes, self._body_seconds = most_bytes, body_bytes, body_seconds
        self.held_bytes = 0
        self.bodies = 0

    def check_head(self, request: web.Request) -> None:
        """Raise BodyTooLarge or MalformedReport for what the head of the request already shows."""
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.lower() != "identity":
            raise MalformedReport("Content-Encoding is not supported: send the report uncompressed")
        if (request.content_length or 0) > self._body_bytes:
            raise self._too_large()

    @contextmanager
    def budget(self) -> Iterator["Budget"]:
        """Yield the share of one body, which is free again after the block."""
        share = Budget(self, self._most_bytes)
        self.bodies += 1
        try:
            yield share
        finally:
            self.bodies -= 1
            self.held_bytes -= share.held

    async def read(self, request: web.Request, budget: "Budget") -> bytearray:
        """Return the body. Raise BodyTooLarge, BodyTooSlow, Busy or MalformedReport."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while part := await request.content.readany():
                    if len(body) + len(part) > self._body_bytes:
                        raise self._too_large()
                    budget.grow(len(part))
                    body += part
        except TimeoutError:
            raise BodyTooSlow(f"the report did not arrive within {self._body_seconds:g} seconds") from None
        except (ClientPayloadError, web.RequestPayloadError, ConnectionError) as error:
            raise MalformedReport(f"the report cannot be read ({type(error).__name__})") from error
        check_values(body)
        return body  # not copied: it may be long

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the report is longer than {self._body_bytes} bytes (the maximum)")


class Budget:
    """The bytes that one body holds of the replica's budget."""

    def __init__(self, incoming: Incoming, most_bytes: int) -> None:
        self._incoming, self._most_bytes = incoming, most_bytes
        self.held = 0

    def grow(self, size: int) -> None:
        """Take `size` more bytes. Raise Busy if the replica holds too many."""
        if self._incoming.held_bytes + size > self._most_bytes:
            raise Busy("too many reports in progress; try again")
        self._incoming.held_bytes += size
        self.held += size


def check_values(body: bytearray) -> None:
    """Raise MalformedReport if the text may have more than JSON_VALUES values, or is empty.

    Postgres needs far more memory for a value than the text has bytes. It checks the syntax itself.
    """
    if not body or body.isspace():
        raise MalformedReport("the report is empty")
    if _separators(body) <= JSON_VALUES:
        return
    if _separators(_STRING.sub(b"", body)) > JSON_VALUES:
        raise MalformedReport(f"the report has more than {JSON_VALUES} JSON values (the maximum)")


def _separators(text: bytes | bytearray) -> int:
    return sum(map(text.count, (b",", b"[", b"{")))
