"""Token buckets by key, for rate limits. Pure, standard library only."""

from collections import OrderedDict


class TokenBuckets:
    """A bucket per key that holds at most `burst` tokens and gains `per_second`. New buckets are full.

    The `keys` most recently used buckets are remembered. Times are seconds of any origin.
    """

    def __init__(self, *, per_second: float, burst: int, keys: int) -> None:
        """With `per_second` 0 there is no limit."""
        self._seconds = 1 / per_second if per_second else 0.0  # per token
        self._burst, self._keys = burst, keys
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when the bucket will be full again

    def take(self, key: str, now: float) -> float:
        """Take a token and return 0; or take none and return the seconds until one is available."""
        wait = self.wait(key, now)
        if wait > 0:
            return wait
        self._full_at[key] = max(now, self._full_at.get(key, now)) + self._seconds
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until a token is available, 0 if there is one now."""
        full_at = max(now, self._full_at.get(key, now)) + self._seconds
        return max(0.0, full_at - now - self._burst * self._seconds)
