"""The tokens that Postgres accepted lately, by their hashes."""

from collections import OrderedDict
from hashlib import sha256
from uuid import UUID

REMEMBERED = 20_000


class AcceptedTokens:
    """Which token of which task was accepted. The REMEMBERED ones that were used last are known."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[bytes, None] = OrderedDict()

    def add(self, task_id: UUID, token: str) -> None:
        """Remember a token that Postgres accepted."""
        key = _key(task_id, token)
        self._hashes[key] = None
        self._hashes.move_to_end(key)
        if len(self._hashes) > REMEMBERED:
            self._hashes.popitem(last=False)

    def remove(self, task_id: UUID, token: str) -> None:
        """Forget a token that Postgres no longer accepts."""
        self._hashes.pop(_key(task_id, token), None)

    def has(self, task_id: UUID, token: str) -> bool:
        """Return whether the token was accepted. Every report is still checked by Postgres."""
        key = _key(task_id, token)
        if key not in self._hashes:
            return False
        self._hashes.move_to_end(key)
        return True


def _key(task_id: UUID, token: str) -> bytes:
    return sha256(task_id.bytes + token.encode()).digest()
