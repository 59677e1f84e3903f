"""Output paths as literal paths or POSIX patterns (XCU 2.13). Standard library only.

`*`, `?`, `[…]` and `[!…]` are wildcards; they do not match `/`, and a leading dot must be written out. A
backslash escapes the next character and is removed, even if the path has no wildcard. A bracket that is not
closed is an ordinary character.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPABLE = frozenset("*?[]!^-\\")  # characters that have a meaning in patterns
_WILDCARDS = frozenset("*?[")
_NAMED_CHARACTERS = 16  # more than the longest `[:class:]`
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


class Reading(Enum):
    """The interpretation of an output path.

    EITHER: its only wildcards are brackets. Some clients do not escape brackets in names, so both a file with
    exactly this name and matching files are sent.
    """

    LITERAL = "literal"
    PATTERN = "pattern"
    EITHER = "either"


def reading(path: str) -> Reading:
    """Return the interpretation of `path`."""
    if _WILDCARDS.isdisjoint(path):  # almost every path, and each is read many times per task
        return Reading.LITERAL
    kinds = {token.kind for segment in path.split("/") for token in _tokens(segment)}
    if kinds & {"*", "?"}:
        return Reading.PATTERN
    return Reading.EITHER if "[" in kinds else Reading.LITERAL


def has_wildcard(path: str) -> bool:
    """Return whether a path has an unescaped `*`, `?` or `[…]`."""
    return reading(path) is not Reading.LITERAL


def unescaped(path: str) -> str:
    """Return the path without escaping backslashes: the name of a file, unless it is a pattern."""
    return _ESCAPED.sub(r"\1", path)


def problem(path: str) -> str | None:
    """Return why `path` is invalid, or None."""
    for segment in path.split("/"):
        for token in _tokens(segment):
            found = _problem(token)
            if found is not None:
                return found
    return None


def needless_escape(path: str) -> str | None:
    """Return the first escape of an ordinary character (`\\b`), whose backslash may be part of a name."""
    escapes = (match[0] for match in _ESCAPED.finditer(path) if match[1] not in _ESCAPABLE)
    return next(escapes, None)


def literal_directory(pattern: str) -> str:
    """Return the directory above the first segment with a wildcard, unescaped: `/a/b/*.txt` -> `/a/b`."""
    literal: list[str] = []
    for segment in pattern.split("/"):
        if has_wildcard(segment):
            break
        literal.append(unescaped(segment))
    return "/".join(literal) or "/"


@lru_cache(maxsize=256)
def segment_regex(segment: str) -> re.Pattern[str]:
    """Return a pattern without `/` as a regular expression for one file name.

    Each part between two stars is matched at its first possible position (an atomic group). This is
    sufficient because all other tokens have a fixed length, and bounds the time by the product of both
    lengths.
    """
    tokens = list(_tokens(segment))
    parts = [""]
    for token in tokens:
        if token.kind != "*":
            parts[-1] += _regex(token)
        elif parts[-1] or len(parts) == 1:  # consecutive stars count as one
            parts.append("")
    first, *others = parts
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    last = f".*{others[-1]}" if others else ""
    explicit_dot = tokens[:1] == [_Token("char", ".")]
    return re.compile(("" if explicit_dot else r"(?!\.)") + first + middle + last, re.DOTALL)


def matches(pattern: str, path: str) -> bool:
    """Return whether a whole path matches a whole pattern, segment by segment."""
    patterns, names = pattern.split("/"), path.split("/")
    return len(patterns) == len(names) and all(
        segment_regex(one).fullmatch(name) is not None for one, name in zip(patterns, names, strict=True)
    )


def join_url(base: str, relative: str) -> str:
    """Return `base` as a directory URL plus a relative path."""
    return posixpath.join(base.rstrip("/") + "/", relative.lstrip("/"))


@dataclass(frozen=True)
class _Token:
    """`kind`: `*`, `?`, `[` with the text in the brackets, `char`, or `end` for a `\\` at the end."""

    kind: str
    text: str = ""


def _tokens(segment: str) -> Iterator[_Token]:
    """Yield the tokens. After one unclosed bracket, later ones are not searched, so the time is linear."""
    index = 0
    closed = True
    while index < len(segment):
        char = segment[index]
        end = _bracket_end(segment, index) if char == "[" and closed else None
        if char in "*?":
            yield _Token(char)
        elif char == "\\":
            index += 1
            yield _Token("char", segment[index]) if index < len(segment) else _Token("end", char)
        elif end is not None:
            yield _Token("[", segment[index + 1 : end])
            index = end
        else:
            closed = closed and char != "["
            yield _Token("char", char)
        index += 1


def _bracket_end(segment: str, start: int) -> int | None:
    index = start + 1
    if segment[index : index + 1] == "!":
        index += 1
    if segment[index : index + 1] == "]":  # first in the list: itself
        index += 1
    while index < len(segment) and segment[index] != "]":
        named = _named(segment, index)
        index += len(named) if named else 2 if segment[index] == "\\" else 1
    return index if index < len(segment) else None


def _named(text: str, index: int) -> str:
    """Return the `[:class:]`, `[.symbol.]` or `[=equivalence=]` that begins there, or an empty string."""
    mark = text[index + 1 : index + 2]
    if text[index] != "[" or mark not in {":", ".", "="}:
        return ""
    close = text.find(f"{mark}]", index + 2, index + _NAMED_CHARACTERS)
    return "" if close == -1 else text[index : close + 2]


def _members(body: str) -> Iterator[tuple[str, str]]:
    """Yield the ranges between two brackets as (first, last), and named ones as (`[:class:]`, "")."""
    index = 0
    while index < len(body):
        named = _named(body, index)
        if named:
            yield named, ""
            index += len(named)
            continue
        first, index = _member(body, index)
        last = first
        if index < len(body) - 1 and body[index] == "-":
            last, index = _member(body, index + 1)
        yield first, last


def _member(body: str, index: int) -> tuple[str, int]:
    if body[index] == "\\" and index + 1 < len(body):
        index += 1
    return body[index], index + 1


def _problem(token: _Token) -> str | None:
    if token.kind == "end":
        return r"a backslash must be followed by the character that it escapes (write '\\' for a backslash)"
    if token.kind != "[":
        return None
    for first, last in _members(token.text.removeprefix("!")):
        if not last and first[2:-2] not in _CLASSES:
            known = ", ".join(f"[:{name}:]" for name in _CLASSES)
            return f"{first!r} is not a character class (supported: {known})"
        if last and first > last:
            return f"the range '{first}-{last}' ends before it begins"
    return None


def _regex(token: _Token) -> str:
    if token.kind == "?":
        return "."
    if token.kind != "[":
        return re.escape(token.text)
    negated = token.text.startswith("!")
    members = "".join(_member_regex(*member) for member in _members(token.text.removeprefix("!")))
    if not members:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{members}]"


def _member_regex(first: str, last: str) -> str:
    """Return the regular expression of a member, empty if it is invalid (see `problem`)."""
    if not last:
        return _CLASSES.get(first[2:-2], "") if first.startswith("[:") else ""
    if first > last:
        return ""
    return re.escape(first) if first == last else f"{re.escape(first)}-{re.escape(last)}"
