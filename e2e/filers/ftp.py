"""A filer for ftp://, which cwl-tes uses for its files (docs/reference/filers.md, contract version 1)."""

import ftplib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PASSING, FOR_GOOD = 75, 65


def main() -> int:
    """Run the filer and return its exit code."""
    os.umask(0)
    work = json.loads(Path(os.environ["POIESIS_WORK_LIST"]).read_text())
    if work["version"] != 1:
        _emit(event="error", message=f"unsupported version of the work list: {work['version']}")
        return FOR_GOOD
    try:
        for item in work.get("inputs", ()):
            with _server(item["url"]) as (ftp, path):
                _fetch(ftp, path, Path(item["local"]))
        for item in work.get("outputs", ()):
            with _server(item["url"]) as (ftp, path):
                _send(ftp, path, item)
    except ftplib.error_perm as error:
        _emit(event="error", message=f"rejected by the FTP server: {error}")
        return FOR_GOOD
    except (OSError, EOFError, ftplib.Error) as error:
        _emit(event="error", message=f"cannot reach the FTP server: {error}")
        return PASSING
    return 0


@contextmanager
def _server(url: str) -> Iterator[tuple[ftplib.FTP, str]]:
    """Connect to the server of a URL; yield the connection and the path."""
    parts = urlsplit(url)
    with ftplib.FTP(timeout=30) as ftp:  # noqa: S321 (that is what it is for)
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login(parts.username or "anonymous", parts.password or "")
        yield ftp, unquote(parts.path)


def _fetch(ftp: ftplib.FTP, path: str, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    aside = local.with_name(f"{local.name}.part")
    with aside.open("wb") as file:
        ftp.retrbinary(f"RETR {path}", file.write)
    aside.rename(local)


def _send(ftp: ftplib.FTP, path: str, item: dict[str, Any]) -> None:
    """Send the files of an output; report a missing file as a warning."""
    local = Path(item["local"])
    if not local.exists():
        _emit(event="warning", message=f"{item['path']} does not exist")
    for file in _files(local):
        inside = "" if file == local else f"/{file.relative_to(local)}"
        target = path.rstrip("/") + inside
        _make_directories(ftp, target)
        with file.open("rb") as content:
            ftp.storbinary(f"STOR {target}", content)
        url = item["url"].rstrip("/") + inside
        _emit(event="output", url=url, path=item["path"] + inside, size_bytes=file.stat().st_size)


def _files(local: Path) -> Iterator[Path]:
    if local.is_dir():
        for inner in sorted(local.iterdir()):
            yield from _files(inner)
    elif local.is_file():
        yield local


def _make_directories(ftp: ftplib.FTP, path: str) -> None:
    parts = path.strip("/").split("/")[:-1]
    for count in range(1, len(parts) + 1):
        try:
            ftp.mkd("/" + "/".join(parts[:count]))
        except ftplib.error_perm:  # it exists; otherwise the next command fails
            continue


def _emit(**event: object) -> None:
    with Path(os.environ["POIESIS_RUN"], "progress.jsonl").open("a") as progress:
        progress.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    sys.exit(main())
