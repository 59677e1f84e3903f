"""Loops that live and die together."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from poiesis_models.together import CancelledByNobody, together

Work = Callable[[list[str]], Coroutine[None, None, None]]


async def _for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("for ever")


async def _short(ended: list[str]) -> None:
    await asyncio.sleep(0)
    ended.append("short")


async def _fails(_: list[str]) -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


async def _lets_a_cancellation_out(_: list[str]) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def test_all_works_are_run_to_their_ends_and_helpers_end_with_them() -> None:
    ended: list[str] = []
    await together([_short(ended), _short(ended)], [_for_ever(ended)])
    assert ended == ["short", "short", "for ever"]


async def test_a_helper_may_end_first() -> None:
    ended: list[str] = []
    gate = asyncio.Event()

    async def opens() -> None:
        gate.set()

    async def waits() -> None:
        await gate.wait()
        await asyncio.sleep(0)
        ended.append("waits")

    await together([waits()], [opens()])
    assert ended == ["waits"]


@pytest.mark.parametrize(
    ("bad", "error"), [(_fails, ValueError), (_lets_a_cancellation_out, CancelledByNobody)]
)
@pytest.mark.parametrize("helps", [True, False])
async def test_what_fails_or_is_cancelled_by_nobody_ends_all(
    bad: Work, error: type[Exception], *, helps: bool
) -> None:
    ended: list[str] = []
    works, helpers = [_for_ever(ended)], [_for_ever(ended)]
    (helpers if helps else works).append(bad(ended))
    with pytest.raises(error):
        await together(works, helpers)
    assert ended == ["for ever", "for ever"]


async def test_who_cancels_it_cancels_all() -> None:
    ended: list[str] = []
    running = asyncio.create_task(together([_for_ever(ended)], [_for_ever(ended)]))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["for ever", "for ever"]
