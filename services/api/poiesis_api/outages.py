"""The last failure of this replica to write. Pure."""

from collections.abc import Callable

from poiesis_models.outages import Outage

FORGOTTEN_AFTER_SECONDS = 60.0


class WriteHealth:
    """The last failure of this replica to write, for the body of /readyz."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._met: Outage | None = None
        self._met_at = float("-inf")

    def failed(self, met: Outage) -> None:
        """Remember why a write failed."""
        if met in {Outage.READ_ONLY, Outage.FULL}:
            self._met, self._met_at = met, self._clock()

    def wrote(self) -> None:
        """Forget earlier failures, because a write succeeded."""
        self._met = None

    def note(self) -> str | None:
        """Return the last failure, or None after a minute without another one."""
        if self._met is None or self._clock() - self._met_at > FORGOTTEN_AFTER_SECONDS:
            return None
        return self._met.value
