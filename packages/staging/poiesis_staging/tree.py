"""A tree of files that others have made, seen as they saw it: `root` is their `/`.

They may have left any symbolic link, and this process can read what they could not (its work list, its own
environment). So links are never left to the kernel: each is resolved here as their kernel did, absolute ones
and `..` from `/`, and what is not in the tree then is not there. Standard library only.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from poiesis_models.globs import has_wildcard, literal_directory, segment_regex
from poiesis_transfer.errors import TransferError, reading_error

_MAX_LINKS = 40  # Linux's own limit


@dataclass(frozen=True)
class Missing:
    """There is nothing; `link` is the symbolic link that led there, and `target` what it says."""

    link: str | None = None
    target: str = ""


@dataclass(frozen=True)
class Place:
    """Something that is there: `real` is its path with no symbolic link in it."""

    real: str
    mode: int


class Tree:
    """Paths that go in and come out are those of who made the files.

    `failure` says what an OSError means for one of them: as long as nothing is said, for an output.
    """

    def __init__(self, root: Path, failure: Callable[[OSError, str], TransferError] = reading_error) -> None:
        self._root = str(root).rstrip("/")
        self._failure = failure

    def local(self, real: str) -> str:
        """Where a path without symbolic links lies in the task volume."""
        return self._root + real

    def find(self, path: str) -> Place | Missing:
        """Follow all links, within the tree. Raise Unsendable for what may not be read."""
        with self._reading(path):
            return self._find(path)

    def member(self, real: str, name: str) -> Place | Missing:
        """What a directory, whose path has no symbolic link in it, holds by that name; links are followed."""
        path = f"{real.rstrip('/')}/{name}"
        with self._reading(path):
            mode = os.lstat(self.local(path)).st_mode
            return self._find(path) if stat.S_ISLNK(mode) else Place(path, mode)

    def names(self, real: str, path: str) -> list[str]:
        """What a directory holds, sorted."""
        with self._reading(path):
            return sorted(os.listdir(self.local(real)))  # noqa: PTH208  # names, and no object for each

    def expand(self, pattern: str) -> Iterator[str]:
        """All paths that match a POSIX pattern, by directory sorted; links on the way are followed."""
        yield from self._expand("", [segment for segment in pattern.split("/") if segment])

    def _expand(self, base: str, segments: list[str]) -> Iterator[str]:
        if not segments:
            yield base
            return
        segment, rest = segments[0], segments[1:]
        place = self.find(base or "/")
        if isinstance(place, Missing) or not stat.S_ISDIR(place.mode):
            return
        if has_wildcard(segment):
            regex = segment_regex(segment)
            names = [name for name in self.names(place.real, base or "/") if regex.fullmatch(name)]
        else:
            name = literal_directory(segment)  # without its backslashes
            names = [name] if self._holds(place.real, name) else []
        for name in names:
            yield from self._expand(f"{base}/{name}", rest)

    def _holds(self, real: str, name: str) -> bool:
        """Whether the directory has something by that name, be it a link that leads nowhere."""
        member = f"{real.rstrip('/')}/{name}"
        try:
            os.lstat(self.local(member))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failure(error, member) from error
        return name not in {".", ".."}

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error, path) from error

    def _find(self, path: str) -> Place | Missing:
        done: list[str] = []
        todo = path.split("/")[::-1]
        mode = stat.S_IFDIR
        links = 0
        culprit: tuple[str, str] | None = None
        while todo:
            name = todo.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                del done[-1:]
                mode = stat.S_IFDIR
                continue
            here = "/" + "/".join([*done, name])
            try:
                mode = os.lstat(self.local(here)).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return Missing(*culprit) if culprit else Missing()
            if not stat.S_ISLNK(mode):
                done.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = str(Path(self.local(here)).readlink())
            culprit = here, target
            if target.startswith("/"):
                done.clear()
            todo.extend(target.split("/")[::-1])
        return Place("/" + "/".join(done), mode)
