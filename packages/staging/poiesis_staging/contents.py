"""Literal contents, which any filer with inputs may be given."""

from pathlib import Path

from poiesis_models.worklist import InputItem
from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Landing
from poiesis_transfer.pool import in_thread
from poiesis_transfer.progress import Progress


async def stage_content(item: InputItem, number: int, beside: Path, progress: Progress) -> None:
    """Write the file that `content_file` names, which lies in `beside`; raise TransferError."""
    try:
        data = await in_thread((beside / (item.content_file or "")).read_bytes)
    except OSError as error:
        raise Permanent(f"cannot read the content of input {item.path}: {error.strerror}") from error
    async with Landing(Path(item.local), item.path, progress, owner=number) as landing:
        await landing.write(data, 0)
        await landing.keep(len(data))
