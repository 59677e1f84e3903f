"""The lines of system_logs about a Pod's status: waits, and ends with a reason of Kubernetes. Pure.

The recorder writes them, or the controller for a recorder that works from files only. Each line has a key
that is unique in its attempt. The api recognizes the keys of waits (`<container>/waiting-…`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from poiesis_models.labels import TREC_CONTAINER
from poiesis_models.podstatus import ContainerEnd, ContainerWait
from poiesis_models.runfiles import sanitized

LINE_CHARACTERS = 2048
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff"})  # alternate; both have the same message
_QUIET = frozenset({"", "Completed", "Error"})  # the "ended" line has the details


@dataclass(frozen=True, kw_only=True)
class StatusLine:
    """A line about one container."""

    key: str
    message: str


def status_lines(waits: Iterable[ContainerWait], ends: Iterable[ContainerEnd]) -> Iterator[StatusLine]:
    """Yield the lines about all containers except the recorder."""
    for wait in waits:
        if wait.name != TREC_CONTAINER:
            kind = "pull" if wait.reason in _PULL else wait.reason
            yield _line(f"waiting-{kind}", wait.name, wait.reason, wait.message)
    for end in ends:
        if end.name != TREC_CONTAINER and end.reason not in _QUIET:
            yield _line(end.reason, end.name, end.reason, "" if end.record is not None else end.message)


def shortened(text: str) -> str:
    """Return the text as it can be stored, with at most LINE_CHARACTERS."""
    return sanitized(text).strip()[:LINE_CHARACTERS]


def _line(kind: str, container: str, reason: str, message: str) -> StatusLine:
    text = f"{container}: {reason}: {message}" if message.strip() else f"{container}: {reason}"
    return StatusLine(key=f"{container}/{kind}", message=shortened(text))
