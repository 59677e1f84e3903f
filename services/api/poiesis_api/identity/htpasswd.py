"""User names and bcrypt hashes, as `htpasswd -B` writes them. Pure."""

import re
from collections.abc import Mapping

import bcrypt

from poiesis_api.identity.caller import is_name

PASSWORD_BYTES = 72  # bcrypt looks at no more of them, so a longer one is refused
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}")
# Of nobody's password: unknown users take as long to refuse as known ones.
NOBODY = bcrypt.hashpw(b"", bcrypt.gensalt(rounds=10))


class BadUsers(ValueError):
    """The file cannot be used; the message names the line and never a hash."""


def parse_users(text: str) -> Mapping[str, bytes]:
    """Hash by name. Empty lines and those that begin with # are left out. Raise BadUsers."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not is_name(name):
            raise BadUsers(f"line {number} has no user name")
        if not _HASH.fullmatch(hashed):
            raise BadUsers(f"line {number}: the hash of {name!r} is none of bcrypt (htpasswd -B)")
        if name in users:
            raise BadUsers(f"line {number}: {name!r} is there already")
        users[name] = hashed.encode()
    return users


def is_password(password: str, hashed: bytes) -> bool:
    """Takes a tenth of a second of a processor, on purpose."""
    given = password.encode()
    fits = len(given) <= PASSWORD_BYTES and b"\0" not in given
    return bcrypt.checkpw(given if fits else b"", hashed) and fits
