"""The log line of a rejected create, for users whose workflow engine discards the response. Pure.

It contains values of the task only where they cannot be secret: paths, images, types, resources.
"""

import re

from poiesis_api.errors import SHOWN_CHARACTERS

_SHOWN = re.compile(
    r"(executors\[\d+\]\.(image|workdir|stdin|stdout|stderr)|(inputs|outputs)\[\d+\]\.(path|type)"
    r"|volumes\[\d+\]|resources\.(cpu_cores|ram_gb|disk_gb|preemptible))"
)
# A value as written by `shown`, which may cut it.
_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1)[^\\])*(?:\1|$)""", re.DOTALL)
_SEVERAL = re.compile(
    r"; .*: |; and \d+ more$", re.DOTALL
)  # several problems: only the field of the first is known
_GOT = re.compile(r", got .*", re.DOTALL)


def log_fields(
    *, status: int, error: str, field: str | None, user: str | None, user_agent: str | None
) -> dict[str, object]:
    """Return the `extra` fields of the log line."""
    return {
        "status": status,
        "field": field,
        "error": error if _may_be_shown(error, field) else _without_values(error),
        "user": user,
        "user_agent": user_agent[:SHOWN_CHARACTERS] if user_agent else None,
    }


def _may_be_shown(error: str, field: str | None) -> bool:
    """Return whether the error concerns one field only, whose values cannot be secret."""
    return field is not None and _SHOWN.fullmatch(field) is not None and not _SEVERAL.search(error)


def _without_values(error: str) -> str:
    return _QUOTED.sub("'…'", _GOT.sub(", got …", error))
