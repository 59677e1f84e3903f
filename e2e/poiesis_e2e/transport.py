"""The way in which recorders report, for all releases of a run: POIESIS_E2E_TRANSPORT."""

import os
from typing import Literal, cast, get_args

Transport = Literal["gateway", "postgres"]


def transport() -> Transport:
    """Return the transport of this run (default: gateway). Raise ValueError for an unknown name."""
    named = os.environ.get("POIESIS_E2E_TRANSPORT", "gateway")
    if named not in (known := get_args(Transport)):
        raise ValueError(f"POIESIS_E2E_TRANSPORT must be one of {', '.join(known)}, got {named!r}")
    return cast("Transport", named)
