"""Which remote of rclone.conf serves a URL, and the path on it. Pure; standard library only.

The name of a remote is the scheme that it serves, optionally with a label after `+`: `[gs]`, `[gs+bucket]`,
`[sftp+2]`. If the store is one host (SFTP, WebDAV), the URL's host and port must be those of the remote. For
other stores, the part after `//` is a path from the remote's root, whose first segment is usually a bucket; a
remote with this segment as its label has precedence over the remote without a label.
"""

from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from poiesis_models.paths import names_all
from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import scheme, shown

_PORTS = {"ftp": 21, "sftp": 22, "smb": 445, "http": 80, "https": 443}
_URL_BACKENDS = {"webdav", "http"}  # their `url` contains the host
_HOST_BACKENDS = {"sftp", "ftp", "smb"}  # their `host` and `port` do
_ENCRYPTED = "RCLONE_ENCRYPT"
# Characters that rclone decodes in names for some backends: full-width `.` and `/`, the symbol for NUL.
_LOOK_ALIKES = str.maketrans({"\uff0e": ".", "\uff0f": "/", "\u2400": "\0"})
_SECRET_WORDS = ("pass", "secret", "key", "token", "sas", "cred", "bearer")


@dataclass(frozen=True)
class Remote:
    """One section of rclone.conf."""

    name: str
    options: Mapping[str, str] = field(repr=False)

    @property
    def scheme(self) -> str:
        """Return the scheme of the URLs that it serves."""
        return self.name.partition("+")[0].lower()

    @property
    def label(self) -> str:
        """Return the part of the name after `+`."""
        return self.name.partition("+")[2]

    @property
    def type(self) -> str:
        """Return the name of the backend."""
        return self.options.get("type", "")

    @property
    def authority(self) -> tuple[str, int] | None:
        """Return host and port of a remote for one server; None for other remotes."""
        if self.type in _URL_BACKENDS:
            return _host_and_port(self.options.get("url", ""))
        if self.type in _HOST_BACKENDS:
            port = self.options.get("port") or _PORTS[self.type]
            return _host_and_port(f"{self.type}://{self.options.get('host', '')}:{port}")
        return None


@dataclass(frozen=True)
class Place:
    """The location of a URL: rclone's `fs` and the path in it. `directory`: the URL ends with `/`."""

    fs: str
    path: str
    directory: bool = False

    def below(self, name: str) -> "Place":
        """Return the location of a relative path below this one."""
        return Place(self.fs, f"{self.path}/{name}" if self.path else name)


def parse(text: str) -> tuple[Remote, ...]:
    """Return the remotes of rclone.conf. Raise Permanent."""
    if text.startswith(_ENCRYPTED):
        raise Permanent("rclone.conf is encrypted; store it unencrypted in the Secret")
    parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",), default_section="")
    try:
        parser.read_string(text)
    except Error as error:
        raise Permanent("rclone.conf is not a valid INI file") from error
    remotes = tuple(Remote(name, dict(parser[name])) for name in parser.sections())
    for remote in remotes:
        _check(remote)
    return remotes


def _check(remote: Remote) -> None:
    if remote.type == "local":
        raise Permanent(f"rclone.conf: [{remote.name}] would expose this container's files to tasks")
    try:
        authority = remote.authority
    except ValueError as error:
        raise Permanent(f"rclone.conf: [{remote.name}] has an invalid port") from error
    if authority is not None and not authority[0]:
        raise Permanent(f"rclone.conf: [{remote.name}] has no host")


def secrets(remotes: Sequence[Remote]) -> Iterator[str]:
    """Return the values that no message may contain."""
    for remote in remotes:
        for key, value in remote.options.items():
            if value and any(word in key for word in _SECRET_WORDS):
                yield value


def place_of(url: str, remotes: Sequence[Remote]) -> Place:
    """Return the location of a URL. Raise Permanent if no remote serves it."""
    remote = remote_of(url, remotes)
    if remote.authority is not None:
        return _on_host(url, remote)
    rest = _after_slashes(url)
    return Place(f"{remote.name}:", _checked(rest.rstrip("/"), url), rest.endswith("/"))


def remote_of(url: str, remotes: Sequence[Remote]) -> Remote:
    """Return the remote that serves a URL. Raise Permanent if no remote does."""
    bucket = _after_slashes(url).partition("/")[0]
    candidates = [remote for remote in remotes if remote.scheme == scheme(url)]
    for remote in candidates:
        if remote.authority is not None and remote.authority == _authority(url, remote):
            return remote
    for label in (bucket, ""):
        for remote in candidates:
            if remote.authority is None and remote.label == label:
                return remote
    there = ", ".join(sorted({remote.scheme for remote in remotes})) or "none"
    raise Permanent(f"rclone.conf has no remote for {shown(url)}; schemes with a remote: {there}")


def _after_slashes(url: str) -> str:
    _, separator, rest = url.partition("://")
    if not separator or not scheme(url):
        raise Permanent(f"{shown(url)} is not a URL of the form scheme://…")
    return rest


def _host_and_port(url: str, default: str = "") -> tuple[str, int]:
    """Return host and port; the port defaults to that of the scheme or of `default`. Raise ValueError."""
    parts = urlsplit(url)
    return (parts.hostname or "", parts.port or _PORTS.get(default or parts.scheme, 0))


def _authority(url: str, remote: Remote) -> tuple[str, int]:
    default = urlsplit(remote.options["url"]).scheme if remote.type in _URL_BACKENDS else remote.type
    try:
        if urlsplit(url).username is not None:
            raise Permanent(
                f"{shown(url)}: the URL must not contain a user name; the operator sets the credentials"
            )
        return _host_and_port(url, default)
    except ValueError as error:
        raise Permanent(f"{shown(url)} is not a valid URL: {error}") from error


def _on_host(url: str, remote: Remote) -> Place:
    """Return the location on one host: SFTP paths start at the server's `/`, others at the remote's root."""
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise Permanent(f"{shown(url)}: write '?' in a path as %3F and '#' as %23")
    try:
        path = unquote(parts.path, errors="strict").removeprefix("/")
    except UnicodeDecodeError as error:
        raise Permanent(f"{shown(url)}: the path must be UTF-8") from error
    fs = f"{remote.name}:/" if remote.type == "sftp" else f"{remote.name}:"
    return Place(fs, _checked(path.rstrip("/"), url), parts.path.endswith("/"))


def _checked(path: str, url: str) -> str:
    if path and not is_plain(path):
        raise Permanent(
            f"{shown(url)}: a segment of its path is empty, '.' or '..', or decoded as one by rclone"
        )
    return path


def is_plain(path: str) -> bool:
    """Return whether each segment is a plain name, also for backends that decode look-alikes."""
    return all("\0" not in one and names_all(one) for one in (path, path.translate(_LOOK_ALIKES)))
