"""Which of the operator's S3 credentials a task gets. Pure.

This is decided when the task is created, because the caller's groups are known only then. The names are
stored with the task; its containers use the configuration of these names at the time of submission.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from poiesis_api.config import StorageCredentials
from poiesis_api.identity.caller import Caller
from poiesis_models.escapes import other_form
from poiesis_models.s3credentials import Choice
from poiesis_models.tes import TesTaskRequest


class Located(Protocol):
    """An input or output of a TES document or a work list."""

    @property
    def url(self) -> str | None:
        """The URL, or None for a literal input."""

    @property
    def type(self) -> str | None:
        """FILE, DIRECTORY or unset."""


def granted_credentials(
    task: TesTaskRequest, caller: Caller, entries: Iterable[StorageCredentials]
) -> list[str]:
    """Return the names of the entries that the caller may use and the task's URLs need."""
    theirs = [entry for entry in entries if _may_use(caller, entry)]
    staged = [source for source in task.inputs or () if source.literal is None]
    return [entry.name for entry in needed_by(staged, task.outputs or (), theirs)]


def needed_by(
    inputs: Iterable[Located], outputs: Iterable[Located], entries: Sequence[StorageCredentials]
) -> list[StorageCredentials]:
    """Return the entries that some URL needs, as written or with its percent escapes decoded.

    Only the filer finds out which form names an object. An output of type FILE may still be a directory.
    """
    if not entries:
        return []
    urls = {(one.url or "", _may_be_directory(one)) for one in inputs}
    urls |= {(one.url or "", True) for one in outputs}
    urls |= {(decoded, directory) for url, directory in urls if (decoded := other_form(url)) is not None}
    choice = Choice(entries)
    names = {entry.name for url, directory in urls for entry in choice.needed(url, directory=directory)}
    return [entry for entry in entries if entry.name in names]


def _may_use(caller: Caller, entry: StorageCredentials) -> bool:
    """Return whether the caller is listed; an entry without users and groups is for all users."""
    if entry.users is None and entry.groups is None:
        return True
    return caller.name in (entry.users or ()) or not set(entry.groups or ()).isdisjoint(caller.groups)


def _may_be_directory(source: Located) -> bool:
    url = source.url or ""
    names_directory = url.endswith("/") or url.count("/") == len("//")
    return names_directory or source.type != "FILE"
