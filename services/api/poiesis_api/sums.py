"""What all lists and texts of one task may be together. Pure.

Each list has its own limit (poiesis_models.tes); their products would be far more than a server can hold.
"""

from collections.abc import Iterator

from pydantic import BaseModel

from poiesis_api.errors import InvalidTask
from poiesis_models.tes import TesTaskRequest

STRINGS = 100_000
TEXT_BYTES = 4 * 1024 * 1024


def check_sums(task: TesTaskRequest) -> None:
    """Raise InvalidTask."""
    strings = size = 0
    for text in texts(task):
        strings += 1
        size += len(text) if text.isascii() else len(text.encode())
    if strings > STRINGS:
        raise InvalidTask(
            f"the task has {strings} strings (fields, arguments, keys and values); "
            f"at most {STRINGS} are accepted: split it, or put them into a file"
        )
    if size > TEXT_BYTES:
        raise InvalidTask(
            f"the strings of the task have {size} bytes; at most {TEXT_BYTES} are accepted: "
            "use url instead of content for large inputs"
        )


def texts(value: object) -> Iterator[str]:
    """Every string of a document, keys of maps included."""
    match value:
        case str():
            yield value
        case BaseModel():
            for field in value.__dict__.values():
                yield from texts(field)
        case dict():
            for key, item in value.items():
                yield from texts(key)
                yield from texts(item)
        case list():
            for item in value:
                yield from texts(item)
