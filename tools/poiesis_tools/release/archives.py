"""Archives whose bytes depend on their content only, not on the clock, the user or the file system."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

_EARLIEST_ZIP = 315532800  # 1980-01-01, the first time that a ZIP archive can have
_EXECUTABLE = 0o111


def compressed(content: bytes) -> bytes:
    """Return `content` as gzip without name and time."""
    return gzip.compress(content, mtime=0)


def decompressed(content: bytes) -> bytes:
    """Return the content of gzip, or `content` if it is not compressed."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def clamped(layer: bytes, epoch: int) -> bytes:
    """Return the tar archive of an image's layer without times after `epoch`.

    Owners, modes and extended attributes stay. The same is done by `rewrite-timestamp` of BuildKit.
    """
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(layer)) as source,
        tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as written,
    ):
        for member in source:
            member.mtime = min(int(member.mtime), epoch)
            kept = ((key, value) for key, value in member.pax_headers.items() if "time" not in key)
            member.pax_headers = dict(kept)
            written.addfile(member, source.extractfile(member) if member.isreg() else None)
    return target.getvalue()


def repacked(archive: bytes, epoch: int) -> bytes:
    """Return a .tar.gz of regular files, sorted, with one owner and the time `epoch`."""
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(decompressed(archive))) as source,
        tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as written,
    ):
        for member in sorted(source, key=lambda one: one.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mtime = member.size, epoch
            plain.mode = 0o755 if member.mode & _EXECUTABLE else 0o644
            written.addfile(plain, source.extractfile(member))
    return compressed(target.getvalue())


def zipped(files: Mapping[str, bytes], epoch: int) -> bytes:
    """Return a ZIP archive of `files` (path -> content), sorted."""
    target = io.BytesIO()
    time = datetime.fromtimestamp(max(epoch, _EARLIEST_ZIP), UTC).timetuple()[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, time), files[name], zipfile.ZIP_DEFLATED)
    return target.getvalue()


def files_of_tar(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every regular file."""
    with tarfile.open(fileobj=io.BytesIO(decompressed(archive))) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content.read()
