"""Find the files of an output, one at a time, because a task may leave any number."""

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from poiesis_models.globs import Reading, join_url, literal_directory, reading, unescaped
from poiesis_models.worklist import OutputItem
from poiesis_staging.tree import Missing, Place, Tree
from poiesis_transfer import pool
from poiesis_transfer.errors import Permanent, Unsendable
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import printable, shown


@dataclass(frozen=True)
class Found:
    """A regular file. `path` is the path for executors; `local` is its location, with links resolved."""

    path: str
    local: str
    url: str


@dataclass(frozen=True)
class Empty:
    """A directory without entries."""

    path: str


@dataclass(frozen=True)
class Note:
    """A warning for the task's owner; nothing requested is lost."""

    message: str


@dataclass(frozen=True)
class Refusal:
    """Something requested cannot be sent. The rest is sent before the filer fails."""

    error: Unsendable


Finding = Found | Empty | Note | Refusal
Upload = Callable[[Found], int]  # the size in bytes; raises TransferError
Join = Callable[[str, str], str]  # a directory's URL and a relative path -> the URL of the member


def send_all(
    items: Sequence[OutputItem],
    upload: Upload,
    progress: Progress,
    *,
    concurrency: int = pool.CONCURRENCY,
    interrupt: Callable[[], None] = pool.nothing,
    join: Join = join_url,
) -> None:
    """Send every file of every output. Raise TransferError. `interrupt` must end the waits of uploads.

    A failure of the store stops the work. A file that cannot be sent raises only after the others are sent.
    """
    refused: list[Unsendable] = []

    def one(finding: Finding) -> None:
        match finding:
            case Note(message):
                progress.warning(message)
            case Refusal(error):
                refused.append(error)
            case Found(path, _, url):
                try:
                    size = upload(finding)
                except Unsendable as error:
                    refused.append(error)
                else:
                    progress.sent(url=url, path=path, size_bytes=size)

    pool.for_each(findings(items, join), one, concurrency=concurrency, interrupt=interrupt)
    if refused:
        others = len(refused) - 1
        raise Unsendable(f"{refused[0]}; and {others} more" if others else str(refused[0]))


def join_encoded(base: str, relative: str) -> str:
    """Join like `join_url` and percent-encode the name, which may contain `?` or `#`."""
    return join_url(base, quote(relative, errors="replace"))


def data_root(item: OutputItem) -> Path:
    """Return the executors' `/` in the task volume. Raise Permanent if the work list is inconsistent."""
    if not item.path.startswith("/") or not item.local.endswith(item.path):
        raise Permanent(f"invalid work list: local {item.local!r} does not end with path {item.path!r}")
    return Path(item.local.removesuffix(item.path) or "/")


def findings(items: Iterable[OutputItem], join: Join = join_url) -> Iterator[Finding]:
    """Return the files of all outputs, in order. `join` builds the URLs below a directory."""
    for item in items:
        tree = Tree(data_root(item))
        found = _wildcard(tree, item, join) if item.wildcard else _single(tree, item, join)
        while True:  # an unreadable directory ends only this output
            try:
                finding = next(found)
            except StopIteration:
                break
            except Unsendable as error:
                yield Refusal(error)
                break
            yield finding


def walk(tree: Tree, path: str, place: Place, url: str, join: Join = join_url) -> Iterator[Finding]:
    """Return everything below a directory, depth first.

    Not recursive: trees may be deeper than Python's stack.
    """
    stack = [_Directory(path, place.real, url, None)]
    while stack:
        directory = stack.pop()
        try:
            names = tree.names(directory.real, directory.path)
        except Unsendable as error:
            yield Refusal(error)
            continue
        if not names:
            yield Empty(directory.path)
        below: list[_Directory] = []
        for name in names:
            member = f"{directory.path.rstrip('/')}/{name}"
            finding = _member(tree, member, join(directory.url, name), directory)
            if isinstance(finding, _Directory):
                below.append(finding)
            else:
                yield finding
        stack.extend(reversed(below))


def _single(tree: Tree, item: OutputItem, join: Join) -> Iterator[Finding]:
    place = tree.find(item.path)
    if isinstance(place, Missing):
        yield Note(_missing(item.path, place))
    elif item.type == "DIRECTORY" and not stat.S_ISDIR(place.mode):
        yield Refusal(Unsendable(f"output {item.path} is declared as DIRECTORY, but it is a file"))
    else:
        yield from _all(tree, item.path.rstrip("/") or "/", place, item.url, join)


def _wildcard(tree: Tree, item: OutputItem, join: Join) -> Iterator[Finding]:
    prefix = literal_directory(item.path) if item.path_prefix is None else item.path_prefix
    matched = False
    for path in tree.expand(item.path):
        matched = True
        if not path.startswith(prefix):
            yield Note(f"output {path} does not start with its path_prefix {prefix}; using the whole path")
        url = join(item.url, path.removeprefix(prefix))
        place = tree.find(path)
        if isinstance(place, Missing):
            yield Note(_missing(path, place))
        else:
            yield from _all(tree, path, place, url, join)
    exact = unescaped(item.path)
    place = tree.find(exact) if reading(item.path) is Reading.EITHER else Missing()
    if isinstance(place, Place):
        url = item.url if item.path_prefix is None else join(item.url, exact.removeprefix(prefix))
        yield Note(
            f"output {item.path} was also read as a literal name: {exact} exists and is sent to {shown(url)}"
        )
        yield from _all(tree, exact, place, url, join)
    elif not matched:
        yield Note(f"output {item.path} was not produced: no file matches")


def _all(tree: Tree, path: str, place: Place, url: str, join: Join) -> Iterator[Finding]:
    if not stat.S_ISDIR(place.mode):
        yield _leaf(path, tree, place, url)
        return
    sent_any = False
    for finding in walk(tree, path, place, url, join):
        sent_any = sent_any or isinstance(finding, Found | Refusal)
        yield finding
    if not sent_any:
        yield Note(f"output {path} is a directory without files; nothing was sent")


@dataclass(frozen=True)
class _Directory:
    path: str
    real: str
    url: str
    above: "_Directory | None"


def _member(tree: Tree, path: str, url: str, directory: _Directory) -> "Finding | _Directory":
    try:
        place = tree.member(directory.real, path.rpartition("/")[2])
    except Unsendable as error:
        return Refusal(error)
    if isinstance(place, Missing):
        return Note(_missing(path, place))
    if not stat.S_ISDIR(place.mode):
        return _leaf(path, tree, place, url)
    above: _Directory | None = directory
    while above is not None:
        if above.real == place.real:
            return Note(f"{path} is a symbolic link to a directory that contains it; not followed")
        above = above.above
    return _Directory(path, place.real, url, directory)


def _leaf(path: str, tree: Tree, place: Place, url: str) -> Finding:
    if not stat.S_ISREG(place.mode):
        return Note(f"{path} is {_SPECIAL.get(stat.S_IFMT(place.mode), 'a special file')}; left out")
    if url.endswith("/"):
        return Refusal(Unsendable(f"output {path} is a file, but its URL {shown(url)} names a directory"))
    if printable(path) != path:
        return Refusal(Unsendable(f"output {printable(path)}: its name is not UTF-8, which URLs require"))
    return Found(path, tree.local(place.real), url)


_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _missing(path: str, place: Missing) -> str:
    if place.link is None:
        return f"output {path} was not produced"
    return (
        f"{path} was left out: the symbolic link {place.link} leads to {place.target}, which is not "
        "in the task's volume"
    )
