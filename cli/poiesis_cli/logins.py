"""The tokens of `poiesis login` by server: one JSON file, mode 0600, in a directory of mode 0700."""

import asyncio
import fcntl
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from poiesis_cli.errors import BadUsage

_LOCK_POLL = 0.05  # seconds


@dataclass(frozen=True, kw_only=True)
class Login:
    """Tokens for one server. `expires_at`: Unix time; None if the issuer returned no lifetime."""

    issuer: str
    client_id: str
    scope: str
    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Raise TypeError if the document is not a login."""
        return cls(**document)


@dataclass(frozen=True)
class Logins:
    """The file. Write it within `locked`: a refresh token often works only once."""

    file: Path

    def read(self, server: str) -> Login | None:
        """Return the login at this server, if any. Raise BadUsage if the file is unusable."""
        document = self._document().get(server)
        if document is None:
            return None
        try:
            return Login.from_document(document)
        except TypeError:
            raise self._malformed() from None

    def write(self, server: str, login: Login | None) -> None:
        """Store or delete (None) a login. The file is replaced atomically and is never readable by others."""
        document = self._document()
        if login is None:
            document.pop(server, None)
        else:
            document[server] = asdict(login)
        temporary = self.file.with_name(f".{self.file.name}.{secrets.token_hex(8)}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(document, stream)
                stream.flush()
                os.fsync(handle)
            temporary.replace(self.file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._unusable(error) from error

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Exclude other commands of this user on this machine."""
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.file.with_name(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            # Polled, because a thread that blocks in flock cannot be interrupted.
            while not _acquire(handle):  # noqa: ASYNC110
                await asyncio.sleep(_LOCK_POLL)
            yield
        finally:
            os.close(handle)

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self.file.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(error) from error
        except ValueError:
            raise self._malformed() from None
        if not isinstance(document, dict):
            raise self._malformed()
        return document

    def _malformed(self) -> BadUsage:
        return BadUsage(f"{self.file} was not written by poiesis login", "delete it and log in again")

    def _unusable(self, error: OSError) -> BadUsage:
        return BadUsage(f"cannot read or write {str(self.file)!r}: {os.strerror(error.errno or 0)}")


def _acquire(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
