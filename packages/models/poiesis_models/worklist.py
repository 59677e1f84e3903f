"""The filers' work list (filer contract v1): the files to fetch or send, with their paths in the task volume.

Standard library only, because every task pays for the start of its filers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

VERSION = 1
FileType = Literal["FILE", "DIRECTORY"]
_Item = TypeVar("_Item", "InputItem", "OutputItem")

EXIT_DONE = 0
EXIT_PERMANENT = 65  # EX_DATAERR: a permanent failure
EXIT_RETRYABLE = 75  # EX_TEMPFAIL: a retryable failure; the helper restarts the filer


class MalformedWorkList(ValueError):
    """The text is not a work list of this version."""


@dataclass(frozen=True, kw_only=True)
class InputItem:
    """One TES input. `local`: absolute path in the task volume; `path`: path in executors.

    Exactly one of `url` and `content_file` (a file next to the work list) is set.
    """

    path: str
    local: str
    type: FileType | None = None
    url: str | None = None
    content_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputItem:
    """One TES output.

    With `wildcard`, `path` and `local` are POSIX patterns (XCU 2.13) and `url` is a directory: a match is
    sent to `url` + "/" + its path without `path_prefix`.
    """

    url: str
    path: str
    local: str
    type: FileType | None = None
    wildcard: bool = False
    path_prefix: str | None = None


@dataclass(frozen=True, kw_only=True)
class WorkList:
    """The items of one filer container: `inputs` to stage, or `outputs` to send."""

    task: str
    inputs: tuple[InputItem, ...] = ()
    outputs: tuple[OutputItem, ...] = ()

    def to_json(self) -> str:
        """Return the work list as JSON, without unset fields."""
        document = {
            "version": VERSION,
            "task": self.task,
            "inputs": [_without_unset(item) for item in self.inputs],
            "outputs": [_without_unset(item) for item in self.outputs],
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "WorkList":
        """Parse a work list. Raise MalformedWorkList."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["version"] != VERSION:
                raise MalformedWorkList(f"unsupported version {raw['version']!r} (supported: {VERSION})")
            return cls(
                task=raw["task"],
                inputs=_items(InputItem, raw["inputs"]),
                outputs=_items(OutputItem, raw["outputs"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedWorkList(f"not a work list: {error}") from error


def waves(inputs: Sequence[InputItem]) -> list[list[int]]:
    """Return the indexes of inputs in groups to be staged one after the other.

    No input of a group covers another, so the result is deterministic: a deeper path overwrites a higher one,
    and a later input an earlier one with the same path.
    """
    wave: dict[int, int] = {}
    at_path: dict[str, list[int]] = {}
    for index in sorted(range(len(inputs)), key=lambda one: (inputs[one].path.count("/"), one)):
        path = inputs[index].path
        before = [*at_path.get(path, ()), *(one for above in _above(path) for one in at_path.get(above, ()))]
        wave[index] = 1 + max((wave[one] for one in before), default=-1)
        at_path.setdefault(path, []).append(index)
    groups: list[list[int]] = [[] for _ in range(1 + max(wave.values(), default=-1))]
    for index in range(len(inputs)):
        groups[wave[index]].append(index)
    return groups


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _items(kind: type[_Item], raw: Sequence[dict[str, Any]]) -> tuple[_Item, ...]:
    """Parse items, ignoring fields of later versions."""
    known = {field.name for field in fields(kind)}
    return tuple(kind(**{key: value for key, value in item.items() if key in known}) for item in raw)


def _without_unset(item: InputItem | OutputItem) -> dict[str, Any]:
    return {key: value for key, value in asdict(item).items() if value is not None}
