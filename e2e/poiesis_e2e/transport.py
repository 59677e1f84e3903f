"""How recorders work, for all releases of a run: POIESIS_E2E_TRANSPORT and POIESIS_E2E_FILES_ONLY."""

import os
from typing import Literal, cast, get_args

Transport = Literal["gateway", "postgres"]


def transport() -> Transport:
    """Return the transport of this run (default: gateway). Raise ValueError for an unknown name."""
    return cast("Transport", _chosen("POIESIS_E2E_TRANSPORT", get_args(Transport)))


def files_only() -> bool:
    """Return whether recorders work from files only (default: false). Raise ValueError for another word."""
    return _chosen("POIESIS_E2E_FILES_ONLY", ("false", "true")) == "true"


def _chosen(variable: str, known: tuple[str, ...]) -> str:
    """Return the value of a variable; the first of the known ones is the default."""
    named = os.environ.get(variable, known[0])
    if named not in known:
        raise ValueError(f"{variable} must be one of {', '.join(known)}, got {named!r}")
    return named
