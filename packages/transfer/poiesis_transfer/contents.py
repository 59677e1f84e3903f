"""Literal contents, which any filer with inputs may be given. Standard library only."""

from pathlib import Path

from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Landing


def stage_content(content: Path, landing: Landing) -> None:
    """Write what lies in the file `content`, beside the work list; raise TransferError."""
    try:
        data = content.read_bytes()
    except OSError as error:
        raise Permanent(f"cannot read the content of input {landing.path}: {error.strerror}") from error
    with landing:
        landing.write(data, 0)
        landing.keep(len(data))
