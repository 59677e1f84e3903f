"""What to make of an API server that refuses an object: try again, or give the task up. Pure."""

from enum import Enum

from poiesis_api.kube import KubernetesError, Refused
from poiesis_models.refusals import is_final, may_pass

BACK_OFF_SECONDS = 1.0
BACK_OFF_MAX_SECONDS = 60.0
_DOUBLINGS = 10


class Verdict(Enum):
    """Whether the same request may succeed later."""

    PASSING = "passing"
    FINAL = "final"


def judge(error: KubernetesError) -> Verdict:
    """Quota, throttling, outages, rights that are still missing pass; an object that is wrong does not."""
    if not isinstance(error, Refused):
        return Verdict.PASSING
    if is_final(error.message):
        return Verdict.FINAL
    match error.status:
        case 400 | 413 | 422:
            return Verdict.FINAL
        case 403 if may_pass(error.message):
            return Verdict.PASSING
        case 403:
            return Verdict.FINAL
        case _:
            return Verdict.PASSING


def log_key(error: KubernetesError) -> str:
    """One line of system_logs a kind of refusal, however often it comes."""
    return f"submit-{error.status}-{error.reason}" if isinstance(error, Refused) else "submit-unreachable"


def back_off_seconds(attempts: int, chance: float) -> float:
    """1 s, 2 s, 4 s … 60 s after the `attempts`th attempt, of which a half is left to `chance` (0 to 1)."""
    most = min(BACK_OFF_MAX_SECONDS, BACK_OFF_SECONDS * 2.0 ** min(max(attempts - 1, 0), _DOUBLINGS))
    return most / 2 * (1 + chance)
