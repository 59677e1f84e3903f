"""Loops that end together."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from poiesis_models.run_all import UnexpectedCancel, run_all

Work = Callable[[list[str]], Coroutine[None, None, None]]


async def _forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("forever")


async def _short(ended: list[str]) -> None:
    await asyncio.sleep(0)
    ended.append("short")


async def _fails(_: list[str]) -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


async def _raises_cancelled_error(_: list[str]) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def test_helpers_end_with_the_last_work() -> None:
    ended: list[str] = []
    await run_all([_short(ended), _short(ended)], [_forever(ended)])
    assert ended == ["short", "short", "forever"]


async def test_a_helper_may_end_first() -> None:
    ended: list[str] = []
    gate = asyncio.Event()

    async def opens() -> None:
        gate.set()

    async def waits() -> None:
        await gate.wait()
        await asyncio.sleep(0)
        ended.append("waits")

    await run_all([waits()], [opens()])
    assert ended == ["waits"]


@pytest.mark.parametrize(
    ("bad", "error"), [(_fails, ValueError), (_raises_cancelled_error, UnexpectedCancel)]
)
@pytest.mark.parametrize("helps", [True, False])
async def test_failure_or_unexpected_cancel_ends_all(
    bad: Work, error: type[Exception], *, helps: bool
) -> None:
    ended: list[str] = []
    works, helpers = [_forever(ended)], [_forever(ended)]
    (helpers if helps else works).append(bad(ended))
    with pytest.raises(error):
        await run_all(works, helpers)
    assert ended == ["forever", "forever"]


async def test_cancel_of_caller_cancels_all() -> None:
    ended: list[str] = []
    running = asyncio.create_task(run_all([_forever(ended)], [_forever(ended)]))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["forever", "forever"]
