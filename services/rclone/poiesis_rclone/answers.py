"""The meaning of rclone's errors, and the part of them that a task's owner may read. Pure."""

import re
from collections.abc import Iterable

from poiesis_transfer.errors import NotFound, Permanent, Retryable, TransferError
from poiesis_transfer.urls import shown

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"']+", re.IGNORECASE)
_CHARACTERS = 500
_NOT_FOUND = 404
_MISSING = re.compile(r"not found|no such (file|bucket|key|container)|NoSuch", re.IGNORECASE)
# A retry cannot help. rclone has few error codes, and each backend has its own texts.
_FOR_GOOD = re.compile(
    r"\b40[0135]\b|\bcode: 40[0135]\b|AccessDenied|access denied|forbidden|unauthorized|permission denied"
    r"|unable to authenticate|login incorrect|\b5[35]0 |invalid credential|InvalidAccessKey|SignatureDoesNot"
    r"|no space left|disk space|quota|knownhosts|host key|didn't find section|certificate|is a directory"
    r"|is it obscured|couldn't parse config|didn't find backend|resolve endpoint",
    re.IGNORECASE,
)
# Texts of a failure to open a store if a request was sent; all other texts concern the configuration.
_NETWORK = re.compile(
    r"\b(dial|lookup|read|write) (tcp|udp|unix|on)\b|\bEOF\b|broken pipe"
    r"|connection (refused|reset|closed|aborted)"
    r"|time(d |-)?out|deadline exceeded|unreachable|handshake|http2:|net/http|server misbehaving"
    r"|\b(get|head|post|put|delete|options|propfind) \"|\b[45]\d\d\b"
    r"|temporar|try again|too many|unavailable|\bbusy\b|rate.?limit|throttl|slow.?down"
    r"|could not find default credentials",  # a cloud's metadata service may start later than the Pod
    re.IGNORECASE,
)


def failure(what: str, error: str, status: int, secrets: Iterable[str]) -> TransferError:
    """Return the error for a failed call.

    `error` and `status` are rclone's response; `what` starts the message.
    """
    message = f"{what}: {redacted(error, secrets)}"
    words = _URL.sub("", error)  # a path may contain any number and word
    if status == _NOT_FOUND or _MISSING.search(words):
        return NotFound(message)
    if _FOR_GOOD.search(words):
        return Permanent(message)
    return Retryable(message)


def opening_failure(what: str, error: str, status: int, secrets: Iterable[str]) -> TransferError:
    """Return what `failure` does for a store that cannot be opened, before anything is moved.

    A failure is retryable only if its text concerns the network: an invalid remote stays invalid.
    """
    found = failure(what, error, status, secrets)
    if isinstance(found, Retryable) and not _NETWORK.search(_URL.sub("", error)):
        return Permanent(f"{found}; the operator must correct this remote in rclone.conf")
    return found


def redacted(error: str, secrets: Iterable[str]) -> str:
    """Return an error without secrets of the configuration, and with URLs without query and userinfo."""
    text = _URL.sub(lambda match: shown(match[0].partition("?")[0]), " ".join(error.split()))
    for secret in secrets:
        text = text.replace(secret, "…")
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + "…"
