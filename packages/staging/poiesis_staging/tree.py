"""A tree of files that executors have made, as they saw it: `root` is their `/`.

They may have left any symbolic link, and this process can read files that they could not (its work list, its
environment). So the kernel never follows links here: each is resolved relative to `root`, also absolute ones
and `..`, and a path outside the tree counts as missing. Standard library only.
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
    """A missing path. `link` is the symbolic link that led to it, and `target` its content."""

    link: str | None = None
    target: str = ""


@dataclass(frozen=True)
class Place:
    """An existing file or directory. `real` is its path without symbolic links."""

    real: str
    mode: int


class Tree:
    """A tree of files. All paths, in arguments and results, are paths of the executors.

    `failure` converts an OSError for a path; by default to the error for an output.
    """

    def __init__(self, root: Path, failure: Callable[[OSError, str], TransferError] = reading_error) -> None:
        self._root = str(root).rstrip("/")
        self._failure = failure

    def local(self, real: str) -> str:
        """Return the location of a path without symbolic links in the task volume."""
        return self._root + real

    def find(self, path: str) -> Place | Missing:
        """Find a path, following links within the tree. Raise Unsendable if it cannot be read."""
        with self._reading(path):
            return self._find(path)

    def member(self, real: str, name: str) -> Place | Missing:
        """Return an entry of a directory, following links. `real` contains no symbolic link."""
        path = f"{real.rstrip('/')}/{name}"
        with self._reading(path):
            mode = os.lstat(self.local(path)).st_mode
            return self._find(path) if stat.S_ISLNK(mode) else Place(path, mode)

    def names(self, real: str, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        with self._reading(path):
            return sorted(os.listdir(self.local(real)))  # noqa: PTH208  # names only, without an object for each

    def expand(self, pattern: str) -> Iterator[str]:
        """Return the paths that match a POSIX pattern, sorted per directory. Links are followed."""
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
        """Return whether the directory has an entry with that name, even a broken link."""
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
