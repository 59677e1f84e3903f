"""Try to read or forge packets of the Pod's network, which the recorder shares. Print the results."""

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_ETH_P_ALL = 0x0003
_TUN = Path("/dev/net/tun")
_NO_ERROR = 0


def _in_a_new_user_namespace(attempt: Callable[[], None]) -> None:
    """Run the attempt with all capabilities of a new user namespace, but in the Pod's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != _NO_ERROR:
        raise OSError(ctypes.get_errno(), "unshare")
    attempt()


def _capture() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)).close()


def _cooked_capture() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)).close()


def _forge_tcp() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()


def _forge_ip() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()


def _forge_ipv6() -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP).close()


def _spoof_source() -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT


def _make_device() -> None:
    _TUN.parent.mkdir(exist_ok=True)
    os.mknod(_TUN, 0o20600, os.makedev(10, 200))


_ATTEMPTS: dict[str, Callable[[], None]] = {
    "capture": _capture,
    "cooked capture": _cooked_capture,
    "forge TCP": _forge_tcp,
    "forge IP": _forge_ip,
    "forge IPv6": _forge_ipv6,
    "spoof the source": _spoof_source,
    "make a device": _make_device,
}


def _outcome(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "possible"


def _in_a_child(attempt: Callable[[], None]) -> str:
    """Run in a child: a process that has left its user namespace cannot return to it."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, _outcome(lambda: _in_a_new_user_namespace(attempt)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        return result.read()


if __name__ == "__main__":
    for name, attempt in _ATTEMPTS.items():
        print(f"{name}: {_outcome(attempt)}; in a user namespace: {_in_a_child(attempt)}", flush=True)
