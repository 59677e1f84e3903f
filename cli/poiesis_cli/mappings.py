"""Parse `-i URL:PATH`, `-o PATH:URL` and `NAME=VALUE`. Pure, except for reading small local files."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from poiesis_cli.errors import BadUsage

CONTENT_BYTES = 128 * 1024  # TES 1.1, tesInput.content
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATH_AFTER_COLON = re.compile(r":(?=/(?!/))")
_URL_AFTER_COLON = re.compile(r":(?=/|[A-Za-z][A-Za-z0-9+.-]*://)")
_WILDCARD = re.compile(r"[*?\[]")
_UPLOAD = "upload it to storage that the server can read, and use its URL"


def parse_input(text: str) -> dict[str, Any]:
    """Return the `tesInput` of URL:PATH or LOCAL:PATH; the container's path starts at the last `:/`.

    A local file becomes `content`. If either side ends with `/`, the type is DIRECTORY. Raise BadUsage.
    """
    colons = [match.start() for match in _PATH_AFTER_COLON.finditer(text)]
    if not colons or colons[-1] == 0:
        raise BadUsage(
            f"--input must be URL:PATH with an absolute PATH in the container, got {text!r}",
            "for example --input s3://bucket/reads.fq:/data/reads.fq, or a small local file:"
            " --input ./run.sh:/work/run.sh",
        )
    source, path = text[: colons[-1]], text[colons[-1] + 1 :]
    if _SCHEME.match(source):
        return {"url": source, **_typed(path, directory=source.endswith("/") or path.endswith("/"))}
    file = Path(source)
    if file.is_dir():
        raise BadUsage(
            f"--input: {source!r} is a local directory; only small local files can be sent", _UPLOAD
        )
    if path.endswith("/"):
        raise BadUsage(
            f"--input: {path!r} is a directory, but {source!r} is a local file (it has no scheme)",
            f"name the file in the container: --input {source}:{path}{file.name};"
            " a URL needs its scheme, for example s3://bucket/key",
        )
    return {"content": _content(file), **_typed(path, directory=False)}


def parse_output(text: str) -> dict[str, Any]:
    """Return the `tesOutput` of PATH:URL; the URL starts after the first `:` before a scheme or `/`.

    A pattern gets the `path_prefix` that TES requires: the directory before its first wildcard.
    Raise BadUsage.
    """
    if text in {"json", "table"}:
        raise BadUsage(
            f"--output must be PATH:URL after run, got {text!r}",
            f"to choose the format of results: poiesis --output {text} run ...",
        )
    colon = _URL_AFTER_COLON.search(text)
    if colon is None or _SCHEME.match(text):
        raise BadUsage(
            f"--output must be PATH:URL, got {text!r}",
            "for example --output /out/aligned.bam:s3://bucket/aligned.bam",
        )
    path, url = text[: colon.start()], text[colon.end() :]
    if not path.startswith("/"):
        raise BadUsage(
            f"--output: PATH must be an absolute path in the container, got {path!r}",
            f"for example --output /out/{Path(path).name}:{url}, and let the command write to /out",
        )
    wildcard = _WILDCARD.search(path)
    if wildcard is not None:
        prefix = path[: wildcard.start()].rpartition("/")[0]
        return {"url": url, "path": path, "path_prefix": prefix or "/", "type": "FILE"}
    return {"url": url, **_typed(path, directory=url.endswith("/") or path.endswith("/"))}


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Parse KEY=VALUE of each text; the value may contain `=` and may be empty. Raise BadUsage."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise BadUsage(f"{option} must be KEY=VALUE, got {text!r}")
        if name in pairs:
            raise BadUsage(f"{option}: duplicate name {name!r}")
        pairs[name] = value
    return pairs


def parse_environment(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Parse as `parse_pairs`; a NAME alone takes its value from `environ`, as with `docker run`."""
    whole = []
    for text in texts:
        if "=" in text:
            whole.append(text)
        elif text in environ:
            whole.append(f"{text}={environ[text]}")
        else:
            raise BadUsage(
                f"--env: {text!r} is not set in your environment", f"add a value: --env {text}=..."
            )
    return parse_pairs("--env", whole)


def _typed(path: str, *, directory: bool) -> dict[str, str]:
    return {"path": path.rstrip("/") or "/", "type": "DIRECTORY" if directory else "FILE"}


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(CONTENT_BYTES + 1)
    except OSError as error:
        raise BadUsage(
            f"--input: cannot read the local file {str(file)!r}: {os.strerror(error.errno or 0)}",
            "a URL needs its scheme, for example s3://bucket/key",
        ) from error
    if len(data) > CONTENT_BYTES:
        raise BadUsage(f"--input: {str(file)!r} is larger than {CONTENT_BYTES} bytes", _UPLOAD)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadUsage(f"--input: {str(file)!r} is not UTF-8 text", _UPLOAD)
    return text
