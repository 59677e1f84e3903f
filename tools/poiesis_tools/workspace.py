"""The members of the workspace, read from `[tool.uv.workspace]` in the root's pyproject.toml."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A directory with a pyproject.toml.

    `packages`: its import packages. `needs`: the names of members that it declares as dependencies.
    """

    directory: Path
    name: str
    packages: tuple[str, ...]
    needs: frozenset[str]

    @property
    def package_directories(self) -> list[Path]:
        """Return the directories of its import packages."""
        return [self.directory / package for package in self.packages]


@cache
def members() -> tuple[Member, ...]:
    """Return all members, sorted by directory."""
    workspace = _project(ROOT)["tool"]["uv"]["workspace"]
    excluded = {ROOT / path for path in workspace["exclude"]}
    directories = {path for pattern in workspace["members"] for path in ROOT.glob(pattern)} - excluded
    projects = {path: _project(path) for path in sorted(directories) if path.is_dir()}
    names = {project["project"]["name"] for project in projects.values()}
    return tuple(
        Member(
            directory=path,
            name=project["project"]["name"],
            packages=tuple(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]),
            needs=frozenset(_names(project["project"]["dependencies"]) & names),
        )
        for path, project in projects.items()
    )


def reachable(member: Member) -> frozenset[str]:
    """Return the names of the members that `member` may import: its dependencies, and theirs."""
    by_name = {one.name: one for one in members()}
    found: set[str] = set()
    waiting = set(member.needs)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= by_name[name].needs - found
    return frozenset(found)


def _project(directory: Path) -> dict[str, Any]:
    return tomllib.loads((directory / "pyproject.toml").read_text())


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requirements}


if __name__ == "__main__":
    for one in members():
        print(one.directory.relative_to(ROOT))
