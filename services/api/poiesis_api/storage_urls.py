"""Check the URLs of a task by the rules of the filers that will serve them. Pure.

`s3`, `http` and `https` URLs have the same form for every filer. Rules of one program apply if the filer's
command runs it (`python3 -m poiesis_tif`); nothing is assumed about other programs.
"""

from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlsplit

from poiesis_api.config import Filer, FilerSide, TaskPodConfig
from poiesis_api.errors import InvalidTask, Loggable, shown
from poiesis_models import shared, urls
from poiesis_models.paths import names_all
from poiesis_models.tes import TesFileType, TesInput, TesOutput, TesTaskRequest

_TIF, _RCLONE, _FILE = "poiesis_tif", "poiesis_rclone", "poiesis_file"
_HTTP = frozenset({"http", "https"})
_LABEL_CHARACTERS = 63  # of a host name, RFC 1035


def url_scheme(url: str) -> str:
    """Return the scheme in lower case; empty if the URL has none. A bare absolute path is `file`."""
    if url.startswith("/"):
        return "file"
    try:
        return urlsplit(url).scheme
    except ValueError:  # brackets without an IPv6 address
        return ""


def check_urls(task: TesTaskRequest, config: TaskPodConfig) -> None:
    """Raise InvalidTask for the first URL that its filer could not serve."""
    for index, source in enumerate(task.inputs or ()):
        if source.literal is None:
            _check_input(f"inputs[{index}].url", source, config)
        elif config.literal_filer is None:
            field = f"inputs[{index}].content"
            raise InvalidTask("{field}: no filer is configured for inputs", field)
    streams = frozenset(_streams(task))
    for index, output in enumerate(task.outputs or ()):
        is_file = output.type == "FILE" or output.place in streams
        _check_output(f"outputs[{index}].url", output, config, is_file=is_file)


def certain_type(source: TesInput, config: TaskPodConfig) -> TesFileType | None:
    """Return the type of an input if the document and its filer determine it; None if the store decides."""
    known = source.certain_type
    if known is None and url_scheme(source.url or "") in _HTTP and _program_of(source, config) == _TIF:
        return "FILE"
    return known


def url_shown(url: str) -> str:
    """Return a URL for messages, without user, password and query."""
    return shown(urls.shown(url))


def _check_input(field: str, source: TesInput, config: TaskPodConfig) -> None:
    url = source.url or ""
    filer = _filer_for(field, url, config.input_filers)
    program = _program(filer.inputs)
    _check_form(field, url, program)
    _check_shared(field, url, filer, writing=False)
    if program == _TIF and url_scheme(url) in _HTTP and source.certain_type == "DIRECTORY":
        raise InvalidTask(
            "{field}: {url} is fetched by HTTP, which cannot list a directory; "
            "name its files one by one, or use another scheme",
            field,
            url=url_shown(url),
        )
    if program in {_RCLONE, _FILE} and source.type == "FILE" and url.endswith("/"):
        raise InvalidTask("{field}: {url} names a directory, but type is FILE", field, url=url_shown(url))


def _check_output(field: str, output: TesOutput, config: TaskPodConfig, *, is_file: bool) -> None:
    url = output.url
    filer = _filer_for(field, url, config.output_filers)
    _check_form(field, url, _program(filer.outputs))
    _check_shared(field, url, filer, writing=True)
    if not is_file or output.wildcard or output.path.endswith("/"):
        return
    if url.endswith("/") or urls.names_s3_directory(url) or _is_shared_root(url, filer):
        raise InvalidTask(
            "{field}: {url} names a directory, but the output is a file; "
            "add the name of the file, or set type to DIRECTORY",
            field,
            url=url_shown(url),
        )


def _filer_for(field: str, url: str, filers: dict[str, Filer]) -> Filer:
    scheme = url_scheme(url)
    if scheme in filers:
        return filers[scheme]
    supported = Loggable(", ".join(sorted(filers)) or "none")
    if scheme:
        raise InvalidTask(
            "{field}: unsupported URL scheme {scheme} in {url} (supported: {supported})",
            field,
            scheme=repr(scheme),
            url=_redacted(url),
            supported=supported,
        )
    raise InvalidTask(
        "{field}: {url} has no URL scheme (supported: {supported})",
        field,
        url=_redacted(url),
        supported=supported,
    )


def _program_of(source: TesInput, config: TaskPodConfig) -> str:
    filer = config.input_filers.get(url_scheme(source.url or ""))
    return _program(filer.inputs) if filer else ""


def _program(side: FilerSide | None) -> str:
    """Return `poiesis_tif` for `python3 -m poiesis_tif`; empty for a program of the operator."""
    command = side.command if side else []
    modules = [word for option, word in pairwise(command) if option == "-m"]
    return modules[0] if modules else ""


def _check_form(field: str, url: str, program: str) -> None:
    match url_scheme(url):
        case "s3":
            try:
                urls.split_s3(url)
            except urls.NotAnS3Url as error:
                raise InvalidTask(
                    "{field}: {url} {problem}", field, url=error.url, problem=Loggable(error.reason)
                ) from error
        case "http" | "https":
            _check_http(field, url)
        case _ if program == _RCLONE:
            _check_rclone(field, url)


def _check_http(field: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise InvalidTask(  # without `error`, which may quote the user and password
            "{field}: {url} is not an HTTP URL (https://host[:port]/path)", field, url=_redacted(url)
        ) from error
    if not all(0 < len(label) <= _LABEL_CHARACTERS for label in host.removesuffix(".").split(".")):
        raise InvalidTask("{field}: {url} does not contain a valid host name", field, url=_redacted(url))


def _check_rclone(field: str, url: str) -> None:
    """Check the form; paths on hosts and in buckets have the same rules."""
    _, separator, rest = url.partition("://")
    if not separator:
        raise InvalidTask("{field}: {url} must have the form scheme://…", field, url=_redacted(url))
    if rest.rstrip("/") and not names_all(rest.rstrip("/")):
        raise InvalidTask(
            "{field}: a segment of the path of {url} is empty, '.' or '..'", field, url=url_shown(url)
        )


def _check_shared(field: str, url: str, filer: Filer, *, writing: bool) -> None:
    """Check that a file:// URL is in a shared volume of its filer, if that has any."""
    if url_scheme(url) != "file" or not filer.shared_volumes:
        return
    try:
        volume = shared.volume_of(shared.file_path(url), filer.shared)
    except shared.NotAFileUrl as error:
        raise InvalidTask(
            "{field}: {url} is not a file: {reason}", field, url=_redacted(url), reason=Loggable(error)
        ) from error
    usable = [one.prefix for one in filer.shared if one.writable or not writing]
    if volume is None or volume.prefix not in usable:
        raise InvalidTask(
            "{field}: {url} is outside every {kind} ({usable})",
            field,
            url=_redacted(url),
            kind=Loggable("writable shared volume" if writing else "shared volume"),
            usable=Loggable(", ".join(usable) or "none configured"),
        )


def _is_shared_root(url: str, filer: Filer) -> bool:
    if url_scheme(url) != "file" or not filer.shared_volumes:
        return False
    return shared.file_path(url) in {one.prefix for one in filer.shared}


def _streams(task: TesTaskRequest) -> Iterator[str]:
    for executor in task.executors:
        yield from filter(None, (executor.stdout, executor.stderr))


def _redacted(url: str) -> str:
    return shown(urls.redacted(url))
