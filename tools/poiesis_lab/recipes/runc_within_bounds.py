#!/usr/bin/python3 -IS
"""runc for machines whose capability bounding set is incomplete.

`docker run --privileged` asks for every capability there is, and runc refuses what the bounding set lacks.
This takes those out of the bundle's config.json (create, run) and of exec's process file, then becomes runc.
"""

import json
import os
import sys
from collections.abc import Container, Sequence

# in the order of linux/capability.h
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip


def option(arguments: Sequence[str], *names: str) -> str | None:
    for index, argument in enumerate(arguments):
        for name in names:
            if argument == name:
                return arguments[index + 1]
            if argument.startswith(name + "="):
                return argument[len(name) + 1 :]
    return None


def restrict(path: str, allowed: Container[str]) -> None:
    with open(path) as file:  # noqa: PTH123 - pathlib would double the start time
        document = json.load(file)
    process = document.get("process", document)
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names or [] if name in allowed]
    with open(path, "w") as file:  # noqa: PTH123
        json.dump(document, file)


def main() -> None:
    arguments = sys.argv[1:]
    with open("/proc/self/status") as file:  # noqa: PTH123
        bounding = int(next(line.split()[1] for line in file if line.startswith("CapBnd:")), 16)
    allowed = {"CAP_" + name for bit, name in enumerate(NAMES) if bounding >> bit & 1}
    if "exec" in arguments:
        process = option(arguments, "--process", "-p")
        if process:
            restrict(process, allowed)
    elif "create" in arguments or "run" in arguments:
        restrict(f"{option(arguments, '--bundle', '-b') or '.'}/config.json", allowed)
    os.execvp("runc", ["runc", *arguments])  # noqa: S606


main()
