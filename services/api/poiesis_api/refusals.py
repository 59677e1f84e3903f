"""What to make of an API server that refuses an object: try again, or give the task up. Pure."""

from enum import Enum

from poiesis_kube.errors import KubernetesError, Refused
from poiesis_models.backoff import Backoff
from poiesis_models.refusals import is_final, may_pass

BACKOFF = Backoff(first=1.0, longest=60.0)


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
