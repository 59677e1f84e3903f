"""The user that a request comes from. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeGuard

NAME_CHARACTERS = 255
GROUPS = 1000  # more than a token can contain


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An authenticated user. `name`: owner of its tasks; `groups`: whose shared tasks it sees."""

    name: str
    groups: tuple[str, ...] = ()
    administrator: bool = False


ANONYMOUS = Caller(name="anonymous")


def is_name(text: object) -> TypeGuard[str]:
    """Return whether it is a user or group name: not empty, printable, short enough for an index."""
    return isinstance(text, str) and 0 < len(text) <= NAME_CHARACTERS and text.isprintable()


def is_administrator(
    name: str, groups: Collection[str], users: Collection[str], administrators: Collection[str]
) -> bool:
    """Return whether the user or one of its groups is listed as an administrator."""
    return name in users or any(group in administrators for group in groups)
