"""User names and bcrypt hashes, as `htpasswd -B` writes them. Pure."""

import re
from collections.abc import Mapping

import bcrypt

from poiesis_api.identity.caller import is_name

PASSWORD_BYTES = 72  # bcrypt ignores further bytes, so longer passwords are rejected
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}")
# Checked for unknown users, so that rejecting them takes as long as rejecting a known one.
UNKNOWN_USER_HASH = bcrypt.hashpw(b"", bcrypt.gensalt(rounds=10))


class BadUsers(ValueError):
    """The file is invalid. The message names the line and never contains a hash."""


def parse_users(text: str) -> Mapping[str, bytes]:
    """Return the hashes by user name. Empty lines and comments (#) are ignored. Raise BadUsers."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        if not is_name(name):
            raise BadUsers(f"line {number} has no valid user name")
        if not _HASH.fullmatch(hashed):
            raise BadUsers(f"line {number}: the hash of {name!r} is not a bcrypt hash (use htpasswd -B)")
        if name in users:
            raise BadUsers(f"line {number}: duplicate user {name!r}")
        users[name] = hashed.encode()
    return users


def is_password(password: str, hashed: bytes) -> bool:
    """Return whether the password matches. Deliberately takes about 0.1 s of CPU time."""
    given = password.encode()
    fits = len(given) <= PASSWORD_BYTES and b"\0" not in given
    return bcrypt.checkpw(given if fits else b"", hashed) and fits
