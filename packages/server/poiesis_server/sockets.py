"""Sockets that a service listens on."""

import socket


def listen(port: int, *, backlog: int | None = None) -> socket.socket:
    """Return one socket for IPv4 and IPv6, so that both have the same port even if any free one is used."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
    return socket.create_server(("", port), backlog=backlog)
