"""Shared volumes: which ones exist, and access to their files. Standard library only.

Anyone who can write to a volume can create a symbolic link there at any moment. So every path is first
resolved within the volumes and then opened name by name without following links. If the path has changed in
between, it is rejected, and it never leads outside the volumes.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from poiesis_models import paths, shared
from poiesis_models.shared import SharedVolume
from poiesis_staging.tree import Missing, Place, Tree
from poiesis_transfer.errors import NotFound, Permanent, Retryable, TransferError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = {errno.ELOOP, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RETRYABLE = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """All shared volumes. Each is mounted at its prefix below `root`."""

    root: Path
    volumes: tuple[SharedVolume, ...]

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read POIESIS_SHARED (filer contract v1). Raise Permanent."""
        try:
            volumes = shared.from_json(env.get("POIESIS_SHARED") or "[]")
        except shared.MalformedShared as error:
            raise Permanent(f"POIESIS_SHARED: {error}") from error
        return cls(root=Path(paths.SHARED), volumes=volumes)

    @property
    def tree(self) -> Tree:
        """Return the tree of all volumes, with paths as users write them."""
        return Tree(self.root, failure)

    def path(self, url: str, *, writing: bool = False) -> str:
        """Return the path of a URL. Raise Permanent if it is outside every volume, or in a read-only one."""
        try:
            path = shared.file_path(url)
        except shared.NotAFileUrl as error:
            raise Permanent(f"{url!r} is not a file URL: {error}") from error
        volume = shared.volume_of(path, self.volumes)
        if volume is None:
            configured = ", ".join(one.prefix for one in self.volumes) or "none"
            raise Permanent(f"{path} is outside every shared volume (configured: {configured})")
        if writing and not volume.writable:
            raise Permanent(f"{path} cannot be written: the shared volume {volume.prefix} is read-only")
        return path

    def find(self, path: str) -> Place:
        """Find a path, following links. Raise NotFound, or Permanent if a link leads outside the volumes."""
        place = self.tree.find(path)
        if isinstance(place, Missing):
            if place.link is None:
                raise NotFound(f"{path} does not exist")
            raise NotFound(
                f"{path}: the symbolic link {place.link} leads to {place.target}, which does not exist"
            )
        if not self.holds(place.real):
            raise Permanent(f"{path} leads out of the shared volumes")
        return place

    def holds(self, real: str) -> bool:
        """Return whether a path without links is in one of the volumes."""
        return shared.volume_of(real, self.volumes) is not None

    def open(self, real: str) -> int:
        """Open a path without links for reading. Raise OSError if it now contains a link."""
        with self.directory(real.rpartition("/")[0]) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block
            return os.open(real.rpartition("/")[2], flags, dir_fd=directory)

    @contextmanager
    def directory(self, real: str, *, make: bool = False) -> Iterator[int]:
        """Open a directory name by name. `make`: create missing directories."""
        here = os.open(self.root, _DIRECTORY)
        try:
            for name in real.split("/"):
                if name:
                    inner = _enter(here, name, make=make)
                    os.close(here)
                    here = inner
            yield here
        finally:
            os.close(here)


def _enter(directory: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
        try:
            os.mkdir(name, dir_fd=directory)
        except FileExistsError:  # another transfer has created it, or it is a link
            return os.open(name, _DIRECTORY, dir_fd=directory)
        made = os.open(name, _DIRECTORY, dir_fd=directory)
        # Independent of the umask; a set-group-ID directory passes the bit on to its members.
        os.fchmod(made, 0o775 | stat.S_IMODE(os.fstat(made).st_mode) & stat.S_ISGID)
        return made


def failure(error: OSError, path: str) -> TransferError:
    """Return the error for `path` in a shared volume."""
    if error.errno in _RETRYABLE:
        return Retryable(f"{path}: {(error.strerror or 'failed').lower()}")
    if error.errno in _LINK:
        return Permanent(f"{path}: expected a directory, found a symbolic link or a file")
    if error.errno in _DENIED:
        return Permanent(f"{path}: permission denied (filers run as uid and gid 65532)")
    if error.errno in _FULL:
        return Permanent(f"{path}: the shared volume is full")
    if error.errno == errno.ENOENT:
        return NotFound(f"{path} does not exist")
    return Permanent(f"{path}: {(error.strerror or 'failed').lower()}")


@contextmanager
def in_volume(path: str) -> Iterator[None]:
    """Convert OSError to TransferError."""
    try:
        yield
    except OSError as error:
        raise failure(error, path) from error
