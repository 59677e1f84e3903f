"""Files of Maven repositories, by Maven itself: its settings know the mirrors and proxies of this machine."""

import hashlib
from pathlib import Path

from poiesis_lab import cache, host, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, step

_COPY = f"org.apache.maven.plugins:maven-dependency-plugin:{versions.MAVEN_DEPENDENCY_PLUGIN}:copy"
_DOWNLOAD_S = 900


def artifact(group: str, name: str, version: str, kind: str, sha256: str) -> Path:
    """An artifact's file, downloaded now if it is not in the cache. LabError if it is not that very file."""
    file = f"{name}-{version}.{kind}"
    target = cache.directory() / "maven" / f"{sha256[:12]}-{file}"
    if target.exists():
        return target
    host.need_programs("mvn")
    with step(f"download {file}"), cache.workspace() as work, cache.aside(target) as path:
        coordinates = f"{group}:{name}:{version}:{kind}"
        options = [f"-Dartifact={coordinates}", f"-DoutputDirectory={work}"]
        run(
            # In a repository that goes again: the file would lie there a second time.
            ["mvn", "--batch-mode", f"-Dmaven.repo.local={work / 'repository'}", _COPY, *options],
            cwd=work,
            timeout=_DOWNLOAD_S,
        )
        found = digest(work / file)
        if found != sha256:
            raise LabError(f"{coordinates}: sha256 is {found}, not the one that versions.py pins")
        (work / file).rename(path)
    return target


def digest(file: Path) -> str:
    """Its sha256 in hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
