"""Download files with Maven, whose settings have the mirrors and proxies of this machine."""

import hashlib
from pathlib import Path

from poiesis_lab import cache, host, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, step

_COPY = f"org.apache.maven.plugins:maven-dependency-plugin:{versions.MAVEN_DEPENDENCY_PLUGIN}:copy"
_DOWNLOAD_S = 900


def artifact(group: str, name: str, version: str, kind: str, sha256: str) -> Path:
    """Return an artifact's file; download it if it is missing. Raise LabError for another checksum."""
    file = f"{name}-{version}.{kind}"
    target = cache.directory() / "maven" / f"{sha256[:12]}-{file}"
    if target.exists():
        return target
    host.need_programs("mvn")
    with step(f"download {file}"), cache.workspace() as work, cache.aside(target) as path:
        coordinates = f"{group}:{name}:{version}:{kind}"
        options = [f"-Dartifact={coordinates}", f"-DoutputDirectory={work}"]
        run(
            # A temporary repository: a permanent one would keep a second copy.
            ["mvn", "--batch-mode", f"-Dmaven.repo.local={work / 'repository'}", _COPY, *options],
            cwd=work,
            timeout=_DOWNLOAD_S,
        )
        found = digest(work / file)
        if found != sha256:
            raise LabError(f"{coordinates}: sha256 {found} does not match versions.py")
        (work / file).rename(path)
    return target


def digest(file: Path) -> str:
    """Return a file's sha256 in hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
