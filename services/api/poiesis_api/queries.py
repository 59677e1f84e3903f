"""The parameters of GET /tasks and the tokens that lead from page to page. Pure."""

import base64
import binascii
import hashlib
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar

from multidict import MultiMapping

from poiesis_api.errors import InvalidQuery, Loggable, shown
from poiesis_documents.documents import View
from poiesis_models.states import TesState

PAGE_SIZE = 256
PAGE_SIZE_MAX = 2047
INDEXED_CHARACTERS = 128  # of a name (migration 0012)

_SURROGATES, _AFTER_SURROGATES = 0xD800, 0xE000  # no code points between these

_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which tasks a list contains. A tag with value "" matches any value."""

    name_prefix: str = ""
    state: TesState | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """One page: the tasks whose `seq` is below `before`."""

    filter: Filter = Filter()
    page_size: int = PAGE_SIZE
    before: int | None = None
    view: View = View.MINIMAL


def parse_view(query: MultiMapping[str]) -> View:
    """Return the requested view; MINIMAL if none is given. Raise InvalidQuery."""
    return choice(View, query, "view") or View.MINIMAL


def parse_list_query(query: MultiMapping[str], owner: str) -> ListQuery:
    """Return the parameters of a list. Raise InvalidQuery naming the parameter."""
    wanted = Filter(
        name_prefix=_text(query, "name_prefix"),
        state=choice(TesState, query, "state"),
        tags=_tags(query),
    )
    token = _text(query, "page_token")
    return ListQuery(
        filter=wanted,
        page_size=_page_size(query),
        before=read_token(token, wanted, owner) if token else None,
        view=parse_view(query),
    )


def page_token(seq: int, wanted: Filter, owner: str) -> str:
    """Return the opaque token of the next page, valid for the same owner and filters only."""
    return base64.urlsafe_b64encode(struct.pack(">q", seq) + _digest(wanted, owner)).decode().rstrip("=")


def read_token(token: str, wanted: Filter, owner: str) -> int:
    """Return the `seq` before which the page begins. Raise InvalidQuery."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        seq, digest = struct.unpack(">q16s", raw)
    except (binascii.Error, ValueError, struct.error) as error:
        raise InvalidQuery("page_token was not issued by this server", "page_token") from error
    if digest != _digest(wanted, owner):
        raise InvalidQuery("page_token was issued for a list with other filters", "page_token")
    return int(seq)


def prefix_range(prefix: str) -> tuple[str, str | None]:
    """Return the bounds of all texts with this prefix: the first of them, and the first text after them.

    The second one is None if no text comes after them. Texts are compared by their bytes in UTF-8, in the
    order of the code points.
    """
    beginning = prefix.rstrip(chr(sys.maxunicode))
    if not beginning:
        return prefix, None
    after = ord(beginning[-1]) + 1
    return prefix, beginning[:-1] + chr(_AFTER_SURROGATES if after == _SURROGATES else after)


def _digest(wanted: Filter, owner: str) -> bytes:
    identity = json.dumps([owner, wanted.name_prefix, wanted.state, wanted.tags])
    return hashlib.sha256(identity.encode()).digest()[:16]


def _tags(query: MultiMapping[str]) -> tuple[tuple[str, str], ...]:
    keys: Sequence[str] = query.getall("tag_key", [])
    values: Sequence[str] = query.getall("tag_value", [])
    if len(values) > len(keys):
        raise InvalidQuery(
            "tag_value must not be given more often than tag_key, got {values} for {keys}",
            "tag_value",
            values=len(values),
            keys=len(keys),
        )
    return tuple(
        (clean_text("tag_key", key), clean_text("tag_value", value))
        for key, value in zip_longest(keys, values, fillvalue="")
    )


def _page_size(query: MultiMapping[str]) -> int:
    text = query.get("page_size")
    if text is None:
        return PAGE_SIZE
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(PAGE_SIZE_MAX))
    if not is_number or not 1 <= int(text) <= PAGE_SIZE_MAX:
        raise InvalidQuery(
            "{field} must be between 1 and {limit}, got {text}",
            "page_size",
            limit=PAGE_SIZE_MAX,
            text=str(int(text)) if is_number else shown(text),
        )
    return int(text)


def choice(kind: type[_Choice], query: MultiMapping[str], name: str) -> _Choice | None:
    """Return the value of a parameter; None if it is absent or empty. Raise InvalidQuery."""
    return _member(kind, name, text) if (text := query.get(name)) else None


def choices(kind: type[_Choice], query: MultiMapping[str], name: str) -> set[_Choice]:
    """Return the values of a parameter that may be repeated. Raise InvalidQuery."""
    return {_member(kind, name, text) for text in query.getall(name, ())}


def _member(kind: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError as error:
        known = Loggable(", ".join(kind))
        raise InvalidQuery(
            "{field} must be one of {known}, got {text}", name, known=known, text=shown(text)
        ) from error


def _text(query: MultiMapping[str], name: str) -> str:
    return clean_text(name, query.get(name, ""))


def clean_text(name: str, text: str) -> str:
    """Return the text if Postgres can store it. Raise InvalidQuery."""
    if "\0" in text or (not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text)):
        raise InvalidQuery("{field} must not contain NUL or unpaired surrogates", name)
    return text
