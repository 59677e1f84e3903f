"""POSIX patterns (XCU 2.13) as TES outputs use them: `*`, `?`, `[..]`, `[!..]`, `\\`. Standard library only.

`*` and `?` do not cross `/`, and a leading dot is only matched by an explicit dot.
"""

import posixpath
import re

_SPECIAL = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": " \\t",
    "punct": re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    "xdigit": "0-9A-Fa-f",
    "cntrl": r"\x00-\x1f\x7f",
    "print": r"\x20-\x7e",
    "graph": r"\x21-\x7e",
}


def has_wildcard(path: str) -> bool:
    """Whether a path has an unescaped `*`, `?` or `[`."""
    return _SPECIAL.search(_ESCAPED.sub("", path)) is not None


def literal_directory(pattern: str) -> str:
    """The directory above the first segment with a wildcard, unescaped: `/a/b/*.txt` -> `/a/b`."""
    literal: list[str] = []
    for segment in pattern.split("/"):
        if has_wildcard(segment):
            break
        literal.append(_ESCAPED.sub(r"\1", segment))
    return "/".join(literal) or "/"


def segment_regex(segment: str) -> re.Pattern[str]:
    """A pattern without `/` as a regular expression for one file name."""
    out = "" if segment.startswith((".", "\\.")) else r"(?!\.)"
    index = 0
    while index < len(segment):
        char = segment[index]
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "\\" and index + 1 < len(segment):
            index += 1
            out += re.escape(segment[index])
        elif char == "[" and (end := _bracket_end(segment, index)) is not None:
            out += _bracket(segment[index + 1 : end])
            index = end
        else:
            out += re.escape(char)
        index += 1
    return re.compile(out, re.DOTALL)


def matches(pattern: str, path: str) -> bool:
    """Whether a whole path matches a whole pattern, segment by segment."""
    patterns, names = pattern.split("/"), path.split("/")
    return len(patterns) == len(names) and all(
        segment_regex(one).fullmatch(name) is not None for one, name in zip(patterns, names, strict=True)
    )


def join_url(base: str, relative: str) -> str:
    """`base` as a directory URL plus a relative path."""
    return posixpath.join(base.rstrip("/") + "/", relative.lstrip("/"))


def _bracket_end(segment: str, start: int) -> int | None:
    index = start + 1
    if segment[index : index + 1] == "!":
        index += 1
    if segment[index : index + 1] == "]":  # first in the list: itself
        index += 1
    while index < len(segment) and segment[index] != "]":
        if segment.startswith("[:", index) and (close := segment.find(":]", index)) != -1:
            index = close + 1
        index += 1
    return index if index < len(segment) else None


def _bracket(body: str) -> str:
    negated = body.startswith("!")
    inner = body[1:] if negated else body
    out = ""
    index = 0
    while index < len(inner):
        if inner.startswith("[:", index) and (close := inner.find(":]", index)) != -1:
            out += _CLASSES.get(inner[index + 2 : close], "")
            index = close + 2
            continue
        if inner[index] == "-" and 0 < index < len(inner) - 1:
            out += "-"
        else:
            out += re.escape(inner[index])
        index += 1
    return f"[{'^/' if negated else ''}{out}]" if out or negated else "(?!)"
