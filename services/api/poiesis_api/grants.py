"""What the operator limits to some users: S3 credentials, backend parameters and images. Pure.

This is decided when the task is created, because the caller's groups are known only then. The names of
credentials and the accepted parameters are stored with the task; its containers use the configuration of
these names at the time of submission.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from poiesis_api.config import BackendParameters, Document, StorageCredentials
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


class Limited(Protocol):
    """An entry of the configuration for some users."""

    @property
    def users(self) -> list[str] | None:
        """Users who may use the entry."""

    @property
    def groups(self) -> list[str] | None:
        """Groups whose members may use the entry."""


def config_for(caller: Caller, config: Document) -> Document:
    """Return the configuration with only those backend parameters and images that the caller may use.

    A copy lacks the computed filers, so the configuration itself is returned for a caller who may use all.
    """
    images = config.executors.images
    if images is not None:
        images = [entry for entry in images if may_use(caller, entry)]
    parameters = parameters_for(caller, config.backend_parameters)
    if images == config.executors.images and parameters == config.backend_parameters:
        return config
    executors = config.executors.model_copy(update={"images": images})
    return config.model_copy(update={"backend_parameters": parameters, "executors": executors})


def parameters_for(caller: Caller, allowed: BackendParameters) -> BackendParameters:
    """Return the backend parameters with only those values that the caller may use.

    Numbers have no users. Without a kind of GPU, there is no number of GPUs.
    """
    theirs = {
        name: [entry for entry in values if may_use(caller, entry)]
        for name, values in allowed
        if isinstance(values, list)
    }
    gpus = {} if theirs["gpu_resource"] else {"gpu_count": 0}
    return allowed.model_copy(update=theirs | gpus)


def has_limited_values(allowed: BackendParameters) -> bool:
    """Return whether some value of a backend parameter is only for some users."""
    lists = (values for _, values in allowed if isinstance(values, list))
    return any(entry.users or entry.groups for values in lists for entry in values)


def may_use(caller: Caller, entry: Limited) -> bool:
    """Return whether the caller is listed; an entry without users and groups is for all users."""
    if entry.users is None and entry.groups is None:
        return True
    return caller.name in (entry.users or ()) or not set(entry.groups or ()).isdisjoint(caller.groups)


def granted_credentials(
    task: TesTaskRequest, caller: Caller, entries: Iterable[StorageCredentials]
) -> list[str]:
    """Return the names of the entries that the caller may use and the task's URLs need."""
    theirs = [entry for entry in entries if may_use(caller, entry)]
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


def _may_be_directory(source: Located) -> bool:
    url = source.url or ""
    names_directory = url.endswith("/") or url.count("/") == len("//")
    return names_directory or source.type != "FILE"
