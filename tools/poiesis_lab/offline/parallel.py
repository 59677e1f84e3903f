"""Run independent functions concurrently."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from poiesis_lab import cache


def run_all(lanes: Iterable[Callable[[], None]]) -> None:
    """Run each of `lanes` in a thread; return when all have ended, or raise the first exception of one.

    The threads hold the locks that the calling thread holds.
    """
    held = cache.held()

    def run(lane: Callable[[], None]) -> None:
        with cache.holding(held):
            lane()

    with ThreadPoolExecutor() as pool:
        done, _ = wait([pool.submit(run, lane) for lane in lanes], return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
