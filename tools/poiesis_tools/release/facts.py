"""What all parts of a release share: version, commit, time and registry."""

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime

import yaml

from poiesis_lab.errors import LabError
from poiesis_tools.workspace import ROOT

PROJECT = "https://github.com/JaeAeich/poiesis"
CHART = ROOT / "deployment/helm/poiesis"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of one release.

    `revision`: the commit; `epoch`: its time in seconds since 1970, the only time in any file of the release.
    `registry`: host and path, such as ghcr.io/jaeaeich.
    """

    version: str
    revision: str
    epoch: int
    registry: str

    @property
    def created(self) -> str:
        """Return the time as RFC 3339."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def annotations(self, title: str) -> dict[str, str]:
        """Return the annotations of the OCI image specification that every artifact has."""
        found = {
            "title": title,
            "version": self.version,
            "revision": self.revision,
            "created": self.created,
            "licenses": "Apache-2.0",
            "source": PROJECT,
            "url": PROJECT,
            "documentation": f"{PROJECT}/tree/v{self.version}/docs",
        }
        return {f"org.opencontainers.image.{key}": value for key, value in found.items()}


def gather(registry: str | None = None) -> Facts:
    """Return the facts of this checkout; `registry` replaces the chart's default.

    SOURCE_DATE_EPOCH replaces the time of the commit (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    default = yaml.safe_load((CHART / "values.yaml").read_text())["images"]["registry"]
    changed = "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return Facts(
        version=version(),
        revision=_git("rev-parse", "HEAD") + changed,
        epoch=int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct")),
        registry=(registry or default).rstrip("/"),
    )


def version() -> str:
    """Return the version that every part of the release has."""
    return (ROOT / "VERSION").read_text().strip()


def check_tag(tag: str) -> None:
    """Raise LabError if a Git tag is not that of this version."""
    if tag != f"v{version()}":
        raise LabError(f"the tag must be v{version()}, the content of VERSION, got {tag!r}")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
