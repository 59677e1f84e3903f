"""Which key an input's S3 URL names: the literal one or, where nothing is there, the percent-decoded one.

Clients disagree: some send keys as they are, others every URL in the form of RFC 3986. Asking for the literal
key first keeps both working, and costs a request only where it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from poiesis_tif.plan import Stored
from poiesis_transfer.errors import Denied, NotFound
from poiesis_transfer.progress import Progress

MAYBE_ABSENT = (NotFound, Denied)
_Result = TypeVar("_Result")


def at_either_key(step: Stored, attempt: Callable[[Stored], _Result], progress: Progress) -> _Result:
    """Return the result of `attempt` for the literal key or, if it finds nothing there, for the decoded one.

    The use of the decoded key is recorded as a warning. Raise what the literal key gives if there is nothing
    at either, with both keys in its message.
    """
    try:
        return attempt(step)
    except MAYBE_ABSENT as failure:
        decoded = step.decoded
        if decoded is None:
            raise
        result = _at_decoded(decoded, attempt, failure)
        progress.warning(
            f"input {step.target.path}: nothing readable at {step.url}; "
            f"used its percent-decoded key instead: {decoded.url}"
        )
        return result


def _at_decoded(decoded: Stored, attempt: Callable[[Stored], _Result], literal: NotFound | Denied) -> _Result:
    try:
        return attempt(decoded)
    except MAYBE_ABSENT as failure:
        raise type(literal)(f"{literal}; with its percent escapes decoded: {failure}") from failure
