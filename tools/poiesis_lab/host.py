"""Properties of this machine: capabilities, Debian packages, architecture."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, run, step, succeeds

CAP_SYS_RESOURCE = 24  # linux/capability.h
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

# program -> the Debian packages with it and the programs that it calls
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "dockerd": ("docker.io", "containerd", "runc", "iptables", "ca-certificates"),
    "mmdebstrap": ("mmdebstrap", "debian-archive-keyring"),
    "chromium": ("chromium",),
    "mvn": ("maven", "default-jre-headless"),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# packages that newer releases of Debian have split from docker.io
IF_APT_KNOWS = {"dockerd": ("docker-cli", "docker-buildx")}


def bounding_set(proc_status: str) -> int:
    """Return the capability bounding set (bit mask) from the text of /proc/<pid>/status (proc(5), CapBnd)."""
    for line in proc_status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapBnd":
            return int(value.strip(), 16)
    raise LabError("/proc/self/status has no CapBnd line: is this Linux?")


def lacks(capability: int, proc_status: str | None = None) -> bool:
    """Return whether no process on this machine can have `capability`."""
    text = Path("/proc/self/status").read_text() if proc_status is None else proc_status
    return not bounding_set(text) >> capability & 1


def architecture() -> str:
    """Return the architecture as docker and Go name it."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine()
    if machine not in names:
        raise LabError(f"unsupported architecture {machine} (supported: {', '.join(sorted(names))})")
    return names[machine]


def apt_plan(programs: Mapping[str, tuple[str, ...]], present: Callable[[str], bool]) -> list[str]:
    """Return the packages of the missing `programs`."""
    wanted = [
        package for program, packages in programs.items() if not present(program) for package in packages
    ]
    return list(dict.fromkeys(wanted))


def find(program: str) -> str | None:
    """Return the path of `program`; also search the sbin directories, which a user's PATH lacks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def may_bootstrap() -> str | None:
    """Return None if the lab may install packages and start dockerd, else the reason."""
    if os.environ.get("POIESIS_BOOTSTRAP") == "never":
        return "POIESIS_BOOTSTRAP=never"
    if sys.platform != "linux" or not Path("/etc/debian_version").exists():
        return "this is not Debian"
    if os.geteuid() != 0:
        return "this user is not root"
    return None


def browser() -> str:
    """Return the path of a Chromium browser; install Debian's if none exists."""
    for program in BROWSERS:
        if (path := find(program)) is not None:
            return path
    need_programs("chromium")
    if (path := find("chromium")) is None:
        raise LabError("the package chromium contains no program of that name")
    return path


def need_programs(*programs: str) -> None:
    """Install missing `programs`, or raise LabError with the command."""
    missing = apt_plan(
        {program: PACKAGES[program] for program in programs}, lambda name: find(name) is not None
    )
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    refusal = may_bootstrap()
    if refusal is not None:
        raise LabError(
            f"{', '.join(programs)} missing, and not installed because {refusal}.\n"
            f"Install it, for instance: {' '.join(command)}"
        )
    report(f"lab: installing Debian packages: {' '.join(missing)} (POIESIS_BOOTSTRAP=never disables this)")
    with step("apt-get install"):
        run(["apt-get", "update"])
        optional = [package for program in programs for package in IF_APT_KNOWS.get(program, ())]
        known = [package for package in optional if succeeds(["apt-cache", "show", package])]
        run([*command, *known], env={"DEBIAN_FRONTEND": "noninteractive"})
