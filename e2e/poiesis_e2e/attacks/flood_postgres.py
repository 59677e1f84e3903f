"""Open sessions of Postgres, and never answer the challenge of the password.

Arguments: host, number of sessions, seconds. Print how many of them reached the server.
"""

import selectors
import socket
import struct
import sys
import time

_CONNECT_SECONDS = 5.0
_POLICY_SECONDS = 20.0


def _startup_packet() -> bytes:
    names = b"".join(word + b"\0" for word in (b"user", b"poiesis_recorder", b"database", b"poiesis")) + b"\0"
    return struct.pack(">ii", 8 + len(names), 196608) + names  # version 3.0


def _await_policies(address: str) -> None:
    """Wait until a connection fails, at most _POLICY_SECONDS: plugins apply policies to a Pod that runs."""
    deadline = time.monotonic() + _POLICY_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, 5432), timeout=_CONNECT_SECONDS).close()
        except OSError:
            return
        time.sleep(1)


def _error_of(one: socket.socket) -> int:
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def main(host: str, count: str, seconds: str) -> None:
    """Connect, send a startup packet on each connection, and hold them."""
    try:
        address = socket.gethostbyname(host)
    except OSError:
        print("reached 0: the name does not resolve", flush=True)
        return
    _await_policies(address)
    ready = selectors.DefaultSelector()
    for _ in range(int(count)):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((address, 5432))
        ready.register(one, selectors.EVENT_WRITE)
    deadline = time.monotonic() + _CONNECT_SECONDS
    held = []
    while ready.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in ready.select(left):
            ready.unregister(key.fileobj)
            connected = key.fileobj
            if isinstance(connected, socket.socket) and not _error_of(connected):
                connected.send(_startup_packet())
                held.append(connected)
    print(f"reached {len(held)}", flush=True)
    if held:
        time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
