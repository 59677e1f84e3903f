"""`-i URL:PATH`, `-o PATH:URL` and `NAME=VALUE` as TES wants them. Pure, but for small local files."""

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


def parse_input(text: str) -> dict[str, Any]:
    """A `tesInput` of URL:PATH or LOCAL:PATH: the container's path begins at the last `:/`.

    A local file becomes `content`. Either side that ends with `/` makes it a DIRECTORY. Raise BadUsage.
    """
    colons = [match.start() for match in _PATH_AFTER_COLON.finditer(text)]
    if not colons or colons[-1] == 0:
        raise BadUsage(
            f"--input: not URL:PATH: {text!r}",
            "for example: --input s3://bucket/reads.fq:/data/reads.fq, or a small local file:"
            " --input ./run.sh:/work/run.sh",
        )
    source, path = text[: colons[-1]], text[colons[-1] + 1 :]
    if _SCHEME.match(source):
        return {"url": source, **_typed(path, directory=source.endswith("/") or path.endswith("/"))}
    if path.endswith("/"):
        raise BadUsage(f"--input: a local file needs a file's path in the container, not {path!r}")
    return {"content": _content(Path(source)), **_typed(path, directory=False)}


def parse_output(text: str) -> dict[str, Any]:
    """A `tesOutput` of PATH:URL: the URL begins after the first `:` that a scheme or a `/` follows.

    A pattern gets the `path_prefix` that TES demands, the directory before its first wildcard.
    Raise BadUsage.
    """
    colon = _URL_AFTER_COLON.search(text)
    if not text.startswith("/") or colon is None:
        advice = "for example: --output /out/aligned.bam:s3://bucket/aligned.bam"
        if text in {"json", "table"}:
            advice = f"for the format of what is printed write: poiesis --output {text} run ..."
        raise BadUsage(f"--output: not PATH:URL: {text!r}", advice)
    path, url = text[: colon.start()], text[colon.end() :]
    wildcard = _WILDCARD.search(path)
    if wildcard is not None:
        prefix = path[: wildcard.start()].rpartition("/")[0]
        return {"url": url, "path": path, "path_prefix": prefix or "/", "type": "FILE"}
    return {"url": url, **_typed(path, directory=url.endswith("/") or path.endswith("/"))}


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE of each; the value may hold `=` and may be empty. Raise BadUsage naming the option."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise BadUsage(f"{option}: not NAME=VALUE: {text!r}")
        if name in pairs:
            raise BadUsage(f"{option}: {name} is given twice")
        pairs[name] = value
    return pairs


def parse_environment(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """As `parse_pairs`; a NAME alone takes its value from `environ`, as with `docker run`."""
    whole = []
    for text in texts:
        if "=" in text:
            whole.append(text)
        elif text in environ:
            whole.append(f"{text}={environ[text]}")
        else:
            raise BadUsage(f"--env: {text!r} is not set here", f"give it a value: --env {text}=...")
    return parse_pairs("--env", whole)


def _typed(path: str, *, directory: bool) -> dict[str, str]:
    return {"path": path.rstrip("/") or "/", "type": "DIRECTORY" if directory else "FILE"}


def _content(file: Path) -> str:
    advice = "upload it to storage that the server reads, and give its URL"
    try:
        with file.open("rb") as stream:
            data = stream.read(CONTENT_BYTES + 1)
    except OSError as error:
        raise BadUsage(
            f"--input: cannot read the local file {str(file)!r}: {os.strerror(error.errno or 0)}",
            "a URL needs its scheme, for example s3://bucket/key",
        ) from error
    if len(data) > CONTENT_BYTES:
        raise BadUsage(f"--input: {str(file)!r} is longer than {CONTENT_BYTES} bytes", advice)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadUsage(f"--input: {str(file)!r} is not text in UTF-8", advice)
    return text
