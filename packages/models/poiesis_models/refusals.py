"""Whether a rejection by the API server is permanent, decided by its message. Pure."""

import re

_PERMANENT = re.compile(
    r"request is too large|larger than max|Request entity too large"
    r"|admission webhook \S+ denied|ValidatingAdmissionPolicy"
    r"|violates PodSecurity"
    r"|is forbidden: \[?(?:maximum|minimum) \S+ usage per "
    r"|is forbidden: \[?\S+ max limit to request ratio per "
    r'|^(?:Error creating: )?[\w.]+ "[^"]*" is invalid: ',
    re.IGNORECASE,
)
_QUOTA = re.compile(r"exceeded quota|quota exceeded|status unknown for quota|failed quota", re.IGNORECASE)
_NO_PERMISSION = re.compile(r"^.* is forbidden: User \S+ cannot ")

OLD_WEBHOOK = (
    "an admission webhook of this cluster does not support native sidecars and has removed restartPolicy"
)
_CAUSES = {
    "may not be set for init containers without restartPolicy=Always": OLD_WEBHOOK,
    "must specify limits.cpu": "the namespace has a ResourceQuota on limits.cpu, and"
    " config.executors.cpuLimit is none; set it to request or to a number",
}


def explained(message: str) -> str:
    """Return the message, with the cause appended if the API server's message does not state it."""
    cause = next((cause for text, cause in _CAUSES.items() if text in message), None)
    return message if cause is None else f"{message} (the cause: {cause})"


def is_permanent(message: str) -> bool:
    """Return whether the object itself is rejected: size, values, a policy, webhook or limit range."""
    return _PERMANENT.search(message) is not None


def is_quota_or_permission(message: str) -> bool:
    """Return whether a Forbidden, not `is_permanent`, means an exceeded quota or a missing permission."""
    return bool(_QUOTA.search(message) or _NO_PERMISSION.search(message))
