"""Whether to retry when the API server rejects an object, and when. Pure."""

from poiesis_api.pace import LONGEST_PAUSE_SECONDS
from poiesis_kube.errors import KubernetesError, Refused
from poiesis_models.backoff import Backoff
from poiesis_models.refusals import is_permanent, is_quota_or_permission

BACKOFF = Backoff(first=1.0, longest=60.0)


def is_retryable(error: KubernetesError) -> bool:
    """Return whether the same request may succeed later.

    Quotas, throttling, outages and missing permissions are retryable; an invalid object is not.
    """
    if not isinstance(error, Refused):
        return True
    if is_permanent(error.message):
        return False
    match error.status:
        case 400 | 413 | 422:
            return False
        case 403:
            return is_quota_or_permission(error.message)
        case _:
            return True


def delay_of(error: KubernetesError, attempts: int) -> float:
    """Return the seconds until the next attempt: at least the API server's Retry-After."""
    asked = (error.retry_after or 0.0) if isinstance(error, Refused) else 0.0
    return max(BACKOFF.delay(attempts), min(asked, LONGEST_PAUSE_SECONDS))


def log_key(error: KubernetesError) -> str:
    """Return the key of the line in system_logs: one line per kind of rejection."""
    return f"submit-{error.status}-{error.reason}" if isinstance(error, Refused) else "submit-unreachable"
