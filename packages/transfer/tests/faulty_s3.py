"""An S3 between the filers and the real one that injects faults, by a seed. Not part of the package.

It breaks connections, answers 503 to several requests in a row, gives bodies slowly, ends them early, turns
bits in both directions, loses answers, and lets objects change between two requests.
"""

import http.client
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from served_for_tests import serving_http

SLOW = b"<Error><Code>SlowDown</Code></Error>"
FAULTS = ("reset", "storm", "slow", "truncated", "flipped", "flipped-request", "lost", "changed")
_STORM = 3  # requests in a row
_PIECE = 16 * 1024
_BEGUN = re.compile(r"<InitiateMultipartUploadResult.*<UploadId>(.+)</UploadId>", re.DOTALL)
_AT_END = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset


class Mischief:
    """What goes wrong, decided one request after the other; `share` of the requests meets a fault.

    `stay`: the ids of multipart uploads that the client cannot abort: it did not get the id, or its abort did
    not arrive.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._share = share
        self._lock = threading.Lock()
        self._storm = 0
        self.done: Counter[str] = Counter()
        self.stay: set[str] = set()

    def next(self) -> tuple[str | None, float]:
        """A fault, and its position as a number in [0, 1)."""
        with self._lock:
            where = self._random.random()
            if self._storm:
                self._storm -= 1
                fault: str | None = "storm"
            elif self._random.random() < self._share:
                fault = self._random.choice(FAULTS)
                self._storm = self._random.randrange(_STORM) if fault == "storm" else 0
            else:
                fault = None
            if fault:
                self.done[fault] += 1
            return fault, where


@contextmanager
def faulty(endpoint: str, mischief: Mischief, change: Callable[[str], None]) -> Iterator[str]:
    """The URL of the faulty one. `change` makes the object of a path (/bucket/key) another one."""
    real = urlsplit(endpoint)

    class Handler(_Handler):
        place = (real.hostname or "", real.port or 80)

    Handler.mischief = mischief
    Handler.change = staticmethod(change)
    with serving_http(Handler) as url:
        yield url


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    place: tuple[str, int]
    mischief: Mischief
    change: Callable[[str], None]

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""

    def handle(self) -> None:
        """Clients may end connections, too."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        fault, where = self.mischief.next()
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in {"reset", "storm"} and self.command == "DELETE":
            self.mischief.stay.update(parse_qs(urlsplit(self.path).query).get("uploadId", ()))
        if fault == "reset":
            self._reset()
        elif fault == "storm":
            self._answer(503, {"Content-Length": str(len(SLOW))}, SLOW)
        else:
            if fault == "flipped-request":
                sent = _flipped(sent, where)
            status, headers, body = self._forward(sent)
            if fault == "changed" and self.command == "GET" and "?" not in self.path:
                self.change(self.path)
            self._spoilt(fault, where, (status, headers, body))

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _spoilt(self, fault: str | None, where: float, answer: tuple[int, dict[str, str], bytes]) -> None:
        status, headers, body = answer
        if fault in {"lost", "truncated", "flipped"}:
            self.mischief.stay.update(_BEGUN.findall(body.decode(errors="replace")))
        if fault == "lost":
            self._reset()
        elif fault == "truncated":
            self._answer(status, headers, body[: int(len(body) * where)])
            self._reset()
        elif fault == "flipped":
            self._answer(status, headers, _flipped(body, where))
        elif fault == "slow":
            self._answer(status, headers, b"")
            for start in range(0, len(body), _PIECE):
                self.wfile.write(body[start : start + _PIECE])
                threading.Event().wait(0.001)
        else:
            self._answer(status, headers, body)

    def _forward(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """As it came: the signature is of our own Host, which the real one takes from the header."""
        connection = http.client.HTTPConnection(*self.place, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent or None)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        if self.command != "HEAD":
            kept["Content-Length"] = str(len(body))
        return answer.status, kept, body

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_END)
        self.close_connection = True


_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


def _flipped(data: bytes, where: float) -> bytes:
    """One bit of it turned over; nothing of nothing."""
    if not data:
        return data
    spoilt = bytearray(data)
    spoilt[int(len(data) * where)] ^= 0x10
    return bytes(spoilt)
