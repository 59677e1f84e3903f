"""The log line of a rejected create, for operators whose users' engines drop the response. Pure.

Values of a task stay out of it, except where they cannot be secret: paths, images, types, resources.
"""

import re

from poiesis_api.errors import SHOWN_CHARACTERS

_SHOWN = re.compile(
    r"(executors\[\d+\]\.(image|workdir|stdin|stdout|stderr)|(inputs|outputs)\[\d+\]\.(path|type)"
    r"|volumes\[\d+\]|resources\.(cpu_cores|ram_gb|disk_gb|preemptible))"
)
# As `shown` writes a value, which it may cut off.
_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*(?:\1|$)""", re.DOTALL)
_SEVERAL = re.compile(
    r"; .*: |; and \d+ more$", re.DOTALL
)  # problems, of which only the first one's field is known
_GOT = re.compile(r", got .*", re.DOTALL)


def log_fields(
    *, status: int, error: str, field: str | None, user: str | None, user_agent: str | None
) -> dict[str, object]:
    """For `extra` of a log line."""
    return {
        "status": status,
        "field": field,
        "error": error if _may_be_shown(error, field) else _without_values(error),
        "user": user,
        "user_agent": user_agent[:SHOWN_CHARACTERS] if user_agent else None,
    }


def _may_be_shown(error: str, field: str | None) -> bool:
    """Whether it is of one field whose values cannot be secret."""
    return field is not None and _SHOWN.fullmatch(field) is not None and not _SEVERAL.search(error)


def _without_values(error: str) -> str:
    return _QUOTED.sub("'…'", _GOT.sub(", got …", error))
