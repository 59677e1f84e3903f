"""Which remote of rclone.conf a URL is for, and where there. Pure; standard library only.

A remote is named after the scheme that it serves, alone or with a label behind `+`: `[gs]`, `[gs+bucket]`,
`[sftp+2]`. Where the store is one host (SFTP, WebDAV), the URL's host and port have to be the remote's.
Elsewhere what follows `//` is the path from the remote's root, its first segment mostly a bucket; there a
remote whose label is that segment comes before the one without a label.
"""

from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from poiesis_models.paths import names_all
from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import scheme, shown

_PORTS = {"ftp": 21, "sftp": 22, "smb": 445, "http": 80, "https": 443}
_URL_BACKENDS = {"webdav", "http"}  # whose `url` says which host they are for
_HOST_BACKENDS = {"sftp", "ftp", "smb"}  # whose `host` and `port` do
_ENCRYPTED = "RCLONE_ENCRYPT"
# What rclone decodes in names where an encoding lacks it: full-width `.` and `/`, the symbol for NUL.
_LOOK_ALIKES = str.maketrans({"\uff0e": ".", "\uff0f": "/", "\u2400": "\0"})
_SECRET_WORDS = ("pass", "secret", "key", "token", "sas", "cred", "bearer")


@dataclass(frozen=True)
class Remote:
    """One section of rclone.conf."""

    name: str
    options: Mapping[str, str] = field(repr=False)

    @property
    def scheme(self) -> str:
        """Of the URLs that it serves."""
        return self.name.partition("+")[0].lower()

    @property
    def label(self) -> str:
        """What follows `+`."""
        return self.name.partition("+")[2]

    @property
    def type(self) -> str:
        """rclone's backend."""
        return self.options.get("type", "")

    @property
    def authority(self) -> tuple[str, int] | None:
        """Host and port of the one server that it is for; None if it is not for one."""
        if self.type in _URL_BACKENDS:
            return _host_and_port(self.options.get("url", ""))
        if self.type in _HOST_BACKENDS:
            port = self.options.get("port") or _PORTS[self.type]
            return _host_and_port(f"{self.type}://{self.options.get('host', '')}:{port}")
        return None


@dataclass(frozen=True)
class Place:
    """Where a URL leads: rclone's `fs`, and the path in it. `directory`: the URL ends in `/`."""

    fs: str
    path: str
    directory: bool = False

    def below(self, name: str) -> "Place":
        """What lies there by a relative path."""
        return Place(self.fs, f"{self.path}/{name}" if self.path else name)


def parse(text: str) -> tuple[Remote, ...]:
    """The remotes of rclone.conf; raise Permanent."""
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
    """Values that no message may hold."""
    for remote in remotes:
        for key, value in remote.options.items():
            if value and any(word in key for word in _SECRET_WORDS):
                yield value


def place_of(url: str, remotes: Sequence[Remote]) -> Place:
    """Raise Permanent if no remote is for it."""
    remote = remote_of(url, remotes)
    if remote.authority is not None:
        return _on_host(url, remote)
    rest = _after_slashes(url)
    return Place(f"{remote.name}:", _checked(rest.rstrip("/"), url), rest.endswith("/"))


def remote_of(url: str, remotes: Sequence[Remote]) -> Remote:
    """Raise Permanent if there is none."""
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
    """Without a port, that of the URL's scheme, or of `default`; raise ValueError for what is no port."""
    parts = urlsplit(url)
    return (parts.hostname or "", parts.port or _PORTS.get(default or parts.scheme, 0))


def _authority(url: str, remote: Remote) -> tuple[str, int]:
    default = urlsplit(remote.options["url"]).scheme if remote.type in _URL_BACKENDS else remote.type
    try:
        if urlsplit(url).username is not None:
            raise Permanent(f"{shown(url)}: the URL must not contain a user name; the operator sets the credentials")
        return _host_and_port(url, default)
    except ValueError as error:
        raise Permanent(f"{shown(url)} is not a valid URL: {error}") from error


def _on_host(url: str, remote: Remote) -> Place:
    """SFTP paths begin at the server's `/`, all others where the remote does."""
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
        raise Permanent(f"{shown(url)}: a segment of its path is empty, '.' or '..', or decoded as one by rclone")
    return path


def is_plain(path: str) -> bool:
    """Whether each segment of a relative path is a name, also to a backend that decodes look-alikes."""
    return all("\0" not in one and names_all(one) for one in (path, path.translate(_LOOK_ALIKES)))
