"""What the words of an API server that refuses an object tell: may the same request succeed later? Pure."""

import re

_FINAL = re.compile(
    r"request is too large|larger than max|Request entity too large"
    r"|admission webhook \S+ denied|ValidatingAdmissionPolicy"
    r"|violates PodSecurity"
    r"|is forbidden: \[?(?:maximum|minimum) \S+ usage per "
    r"|is forbidden: \[?\S+ max limit to request ratio per "
    r'|^(?:Error creating: )?[\w.]+ "[^"]*" is invalid: ',
    re.IGNORECASE,
)
_QUOTA = re.compile(r"exceeded quota|quota exceeded|status unknown for quota|failed quota", re.IGNORECASE)
_NO_RIGHT = re.compile(r"^.* is forbidden: User \S+ cannot ")

_NOT_A_SIDECAR = "may not be set for init containers without restartPolicy=Always"
OLD_WEBHOOK = (
    "an admission webhook of this cluster does not know native sidecars and has dropped restartPolicy"
)


def explained(message: str) -> str:
    """With what an operator has to know where the API server's own words do not lead to the cause."""
    return f"{message}. That is, {OLD_WEBHOOK}" if _NOT_A_SIDECAR in message else message


def is_final(message: str) -> bool:
    """The object itself is refused: by its size, by its values, by a policy, webhook or limit range."""
    return _FINAL.search(message) is not None


def may_pass(message: str) -> bool:
    """A quota is used up or unknown, or a right is missing. Of a Forbidden that is not `is_final`."""
    return bool(_QUOTA.search(message) or _NO_RIGHT.search(message))
