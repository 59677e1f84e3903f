"""Provide promtool, which tests alerts: the one on the PATH, else that of Debian's package.

The package is unpacked, not installed, because it would start a server. Compiling promtool from its Go module
takes more than an hour of processor time, since it includes the clients of every cloud.
"""

from functools import cache as once
from pathlib import Path

from poiesis_lab import cache, host
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, step, succeeds

_PACKAGE = "prometheus"


@once
def promtool() -> Path:
    """Return the program. Raise LabError if it is neither on the PATH nor available as a package."""
    found = host.find("promtool")
    if found is not None:
        return Path(found)
    if host.find("apt-get") is None or host.find("dpkg") is None:
        raise LabError(
            "promtool is required to test alerts: put it on the PATH (https://prometheus.io/download)"
        )
    target = cache.directory() / "bin" / f"promtool-{cache.hash_of([_PACKAGE, host.architecture()])}"
    if not target.exists():
        with step("unpack promtool"), cache.lock(), cache.workspace() as work, cache.aside(target) as path:
            if not succeeds(["apt-cache", "show", _PACKAGE]):  # a new machine has no list of packages
                run(["apt-get", "update"])
            run(["apt-get", "download", _PACKAGE], cwd=work)
            (package,) = work.glob("*.deb")
            run(["dpkg", "--extract", package, work / "unpacked"])
            (work / "unpacked/usr/bin/promtool").rename(path)
    return target
