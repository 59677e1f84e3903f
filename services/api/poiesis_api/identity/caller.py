"""Who a request comes from. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeGuard

NAME_CHARACTERS = 255
GROUPS = 1000  # more of them than a token can carry


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`name` owns the tasks that the caller creates; `groups` are those that tasks may be shared with."""

    name: str
    groups: tuple[str, ...] = ()
    administrator: bool = False


ANONYMOUS = Caller(name="anonymous")


def is_name(text: object) -> TypeGuard[str]:
    """Whether Postgres can hold it, an index can, and a reader of a log can tell it from another."""
    return isinstance(text, str) and 0 < len(text) <= NAME_CHARACTERS and text.isprintable()


def is_administrator(
    name: str, groups: Collection[str], users: Collection[str], administrators: Collection[str]
) -> bool:
    """Named as one, or member of a group of them."""
    return name in users or any(group in administrators for group in groups)
