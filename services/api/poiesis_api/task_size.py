"""Limits for the total number and size of a task's strings. Pure.

Each list has a limit of its own (poiesis_models.tes), but the product of all limits would exhaust the server.
"""

from collections.abc import Iterator

from pydantic import BaseModel

from poiesis_api.errors import InvalidTask
from poiesis_models.tes import TesTaskRequest

STRINGS = 100_000
TEXT_BYTES = 4 * 1024 * 1024


def check_task_size(task: TesTaskRequest, body_bytes: int) -> None:
    """Raise InvalidTask if a task has too many or too long strings.

    `body_bytes`: the size of its JSON text. A short text is not counted: each string needs two quotes.
    """
    if body_bytes <= 2 * STRINGS:
        return
    strings = size = 0
    for text in texts(task):
        strings += 1
        size += len(text) if text.isascii() else len(text.encode())
    if strings > STRINGS:
        raise InvalidTask(
            "the task has {strings} strings (fields, arguments, keys and values); "
            "the maximum is {limit}: split the task, or put the strings into a file",
            limit=STRINGS,
            strings=strings,
        )
    if size > TEXT_BYTES:
        raise InvalidTask(
            "the strings of the task have {size} bytes; the maximum is {limit}: "
            "use url instead of content for large inputs",
            limit=TEXT_BYTES,
            size=size,
        )


def texts(value: object) -> Iterator[str]:
    """Yield every string of a document, including keys of maps."""
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
