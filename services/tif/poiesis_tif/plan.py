"""Which step each input of a work list requires. Pure; standard library only."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from poiesis_models.worklist import InputItem
from poiesis_tif.http_input import http_input
from poiesis_tif.s3_input import s3_input
from poiesis_tif.steps import LiteralInput, Step, Target
from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import scheme, shown

_SCHEMES: Mapping[str, Callable[[Target, InputItem], Step]] = {
    "s3": s3_input,
    "http": http_input,
    "https": http_input,
}


def plan(items: Sequence[InputItem]) -> list[Step]:
    """Return one step per input, in order. Raise Permanent for an input that cannot be staged."""
    return [_step(number, item) for number, item in enumerate(items)]


def _step(number: int, item: InputItem) -> Step:
    target = Target(local=Path(item.local), path=item.path, number=number)
    if item.content_file is not None:
        return LiteralInput(target, item.content_file)
    url = item.url or ""
    step = _SCHEMES.get(scheme(url))
    if step is None:
        supported = ", ".join(_SCHEMES)
        problem = f"unsupported URL scheme {scheme(url)!r}" if scheme(url) else "no URL scheme"
        raise Permanent(f"input {item.path}: {problem} in {shown(url)!r} (supported: {supported})")
    return step(target, item)
