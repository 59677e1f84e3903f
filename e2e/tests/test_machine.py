"""Stories share the machine, and timed stories have it alone."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poiesis_e2e.machine import Machine


@contextmanager
def another_story(folder: Path, ends: threading.Event) -> Iterator[threading.Event]:
    """Run a story of another worker; the event is set when it has started."""
    began = threading.Event()

    def run() -> None:
        with Machine(folder).shared():
            began.set()
            assert ends.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield began
    finally:
        ends.set()
        thread.join()


async def test_exclusive_and_shared_use_exclude_each_other(tmp_path: Path) -> None:
    mine, first_ends, second_ends = Machine(tmp_path), threading.Event(), threading.Event()
    with mine.shared(), another_story(tmp_path, first_ends) as first:
        assert first.wait(10)
        alone = mine.alone()
        entering = asyncio.create_task(alone.__aenter__())
        done, _ = await asyncio.wait({entering}, timeout=0.1)
        assert not done
        with another_story(tmp_path, second_ends) as second:
            assert not second.wait(0.1)  # it came later and must wait
            first_ends.set()
            await asyncio.wait_for(entering, 10)
            assert not second.is_set()
            await alone.__aexit__(None, None, None)
            assert second.wait(10)
