"""Read CHANGELOG.md (Keep a Changelog): the notes of one version, and its changes for Artifact Hub."""

import re
from collections.abc import Iterator

from poiesis_lab.errors import LabError
from poiesis_tools.release.facts import PROJECT

_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\].*\n", re.MULTILINE)
_KIND = re.compile(r"^### (?P<kind>\w+)\s*$")
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\([^)]+\)")
_RELATIVE = re.compile(r"\]\((?!https?://|#|mailto:)(?P<path>[^)]+)\)")
# https://artifacthub.io/docs/topics/annotations/helm/
KINDS = frozenset({"added", "changed", "deprecated", "removed", "fixed", "security"})


def section(text: str, version: str) -> str:
    """Return the text below the heading of `version`; raise LabError if it has none."""
    headings = list(_HEADING.finditer(text))
    ends = [*(one.start() for one in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=True):
        if heading["version"] == version:
            return text[heading.end() : end].strip() + "\n"
    known = ", ".join(one["version"] for one in headings)
    raise LabError(f"CHANGELOG.md has no section [{version}] (sections: {known}): rename [Unreleased]")


def notes(text: str, version: str) -> str:
    """Return the notes of a release. Links to files of the repository lead to its tag."""
    base = f"{PROJECT}/blob/v{version}/"
    return _RELATIVE.sub(lambda found: f"]({base}{found['path']})", section(text, version))


def changes(text: str, version: str) -> list[dict[str, str]]:
    """Return each entry of a version as {kind, description}, without Markdown links."""
    return [
        {"kind": kind, "description": _LINK.sub(lambda found: found["text"], entry)}
        for kind, entry in _entries(section(text, version))
        if kind in KINDS
    ]


def _entries(body: str) -> Iterator[tuple[str, str]]:
    kind = ""
    for line in body.splitlines():
        if heading := _KIND.match(line):
            kind = heading["kind"].lower()
        elif line.startswith("- "):
            yield kind, line.removeprefix("- ").strip()
