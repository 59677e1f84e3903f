"""`make docs`: build the documentation site, and check the links of every Markdown file.

Sphinx checks the pages below docs/. This module checks all other Markdown files, turns links that lead out of
docs/ into links to the repository, and reports lines of prose that are too long to read.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from poiesis_tools.workspace import ROOT

DOCS = ROOT / "docs"
SITE = ROOT / "build" / "docs"  # kept between builds: Sphinx reads only the pages that changed
REPOSITORY = "https://github.com/JaeAeich/poiesis"
LONGEST_LINE = 400  # characters of a line of prose
_LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
_CODE = re.compile(r"`+[^`]*`+")
_FENCE = re.compile(r"\s*(```|~~~)")
_RESOURCE = re.compile(
    r"""<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|href|data)=["']((?:https?:)?//[^"']+)"""
    r"""|url\(["']?((?:https?:)?//[^"')]+)"""
)
_HEADING = re.compile(r"#{1,6} +(.+?) *#*$")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of every line that is not in a fenced code block; numbers start at 1."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(text: str) -> frozenset[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    for _, line in prose(text):
        if heading := _HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
            if repeated := found[slug]:
                found[f"{slug}-{repeated}"] = 0
    return frozenset(found)


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, target) of every link to a file or an anchor of the repository."""
    for number, line in prose(text):
        for target in _LINK.findall(_CODE.sub("", line)):
            if not re.match(r"[a-z][a-z0-9+.-]*:", target):
                yield number, target


def broken_links(page: Path) -> list[str]:
    """Return a message for each link of a page that leads to no file, or to no heading of a Markdown file."""
    found = []
    for number, target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            found.append(f"{_name(page)}:{number}: no such file: {target}")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            found.append(f"{_name(page)}:{number}: no such heading: {target}")
    return found


def long_lines(page: Path) -> list[str]:
    """Return a message for each line of prose that is longer than LONGEST_LINE; tables are exempt."""
    return [
        f"{_name(page)}:{number}: {len(line)} characters in one paragraph, at most {LONGEST_LINE}"
        for number, line in prose(page.read_text(encoding="utf-8"))
        if len(line) > LONGEST_LINE and not line.startswith("|")
    ]


def with_repository_links(text: str, page: Path) -> str:
    """Return a page of docs/ in which links to files outside of docs/ lead to the repository.

    ValueError if such a file does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        path, hash_, anchor = match.group().partition("#")
        file = (page.parent / path).resolve()
        if ":" in path or not path or file.is_relative_to(DOCS) or not file.is_relative_to(ROOT):
            return match.group()
        if not file.exists():
            raise ValueError(f"{_name(page)}: no such file: {path}")
        kind = "tree" if file.is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{_name(file)}{hash_}{anchor}"

    lines = dict(prose(text))
    return "\n".join(
        _LINK.sub(replaced, line) if number in lines else line
        for number, line in enumerate(text.splitlines(), start=1)
    )


def with_literal_examples(lines: Sequence[str]) -> list[str]:
    """Return the reStructuredText of a command's help with its examples as literal blocks.

    sphinx-click writes an example (a paragraph after `\\b`) as a line block, whose lines start with `| `.
    """
    result: list[str] = []
    example = False
    for line in lines:
        if line.startswith("| ") and not example:
            result += ["", ".. code-block:: text", ""]
        example = line.startswith("| ")
        result.append(f"   {line.removeprefix('| ')}" if example else line.replace("*", "\\*"))
    return result


def schema_tables(schemas: Mapping[str, Any]) -> str:
    """Return Markdown with a section per schema of an OpenAPI document: its fields, or its values."""
    return "\n".join(_section(name, schema) for name, schema in schemas.items())


def _section(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        f"| `{field}` | {_type(about)} | {'**Required.** ' if field in required else ''}{_cell(about)} |"
        for field, about in schema.get("properties", {}).items()
    ]
    table = ["| field | type | description |", "|---|---|---|", *rows] if rows else []
    values = (
        [f"Values: {', '.join(f'`{value}`' for value in schema.get('enum', ()))}"] if "enum" in schema else []
    )
    return "\n\n".join([f"## {name}", _cell(schema), *values, "\n".join(table)]) + "\n"


def _type(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"map to {_type(values)}"
    return str(schema.get("type", "any"))


def _cell(schema: Mapping[str, Any]) -> str:
    read_only = "Read-only. " if schema.get("readOnly") else ""
    text = " ".join(str(schema.get("description", "")).split())
    return read_only + text.replace("<", "&lt;").replace("|", "\\|")


@cache
def markdown_files() -> tuple[Path, ...]:
    """Return the Markdown files of the repository, also new ones that git does not ignore."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return tuple(ROOT / path for path in found if path and (ROOT / path).exists())


def problems() -> list[str]:
    """Return everything that Sphinx does not report."""
    pages = [page for page in markdown_files() if page.is_relative_to(DOCS)]
    generated = {DOCS / "reference/failures.md", DOCS / "reference/values.md"}
    found = [message for page in markdown_files() for message in broken_links(page)]
    return found + [message for page in pages if page not in generated for message in long_lines(page)]


def external_resources(text: str) -> list[str]:
    """Return the URLs of other hosts from which a page or a style sheet loads something."""
    return [script or style for script, style in _RESOURCE.findall(text)]


def _loaded_from_elsewhere() -> list[str]:
    pages = [path for pattern in ("*.html", "*.css") for path in (SITE / "html").rglob(pattern)]
    return [
        f"{_name(page)}: loads {url}"
        for page in pages
        for url in external_resources(page.read_text(encoding="utf-8"))
    ]


def build() -> int:
    """Build the site with warnings as errors; return Sphinx's exit code."""
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--jobs", "auto"]
    folders = [f"--doctree-dir={SITE / 'doctrees'}", str(DOCS), str(SITE / "html")]
    command = [sys.executable, "-m", "sphinx", *options, *folders]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Exit 0 if the site was built and all links are valid."""
    code = build()
    found = problems() + _loaded_from_elsewhere()
    print("".join(f"{message}\n" for message in found), end="")
    if code == 0 and not found:
        print(f"built {(SITE / 'html/index.html').relative_to(ROOT)}")
    return 1 if found else code


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
