"""Literal contents, which every filer with inputs must handle. Standard library only."""

from pathlib import Path

from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Destination


def stage_content(content: Path, destination: Destination) -> None:
    """Copy the file `content` to `destination`. Raise TransferError."""
    try:
        data = content.read_bytes()
    except OSError as error:
        raise Permanent(f"cannot read the content of input {destination.path}: {error.strerror}") from error
    with destination:
        destination.write(data, 0)
        destination.keep(len(data))
