"""Names of container images as runtimes parse them (the reference grammar of the CNCF distribution). Pure."""

import re

_PATH_CHARACTERS = 255
_HUB = "docker.io"  # the registry of names without a host
_HUB_ALIASES = frozenset({_HUB, "index.docker.io"})

_CHARACTERS = re.compile(r"[!-~]+")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


def problem(reference: str) -> str | None:
    """Return why the reference is invalid, or None."""
    if not _CHARACTERS.fullmatch(reference):
        return "it contains spaces or characters that are not printable ASCII"
    if "://" in reference:
        return "it must not have a scheme: [registry/]repository[:tag][@digest]"
    named, at, digest = reference.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return f"the digest {digest!r} must have the form sha256:<64 hexadecimal digits>"
    host, repository = _split(named)
    path, colon, tag = repository.partition(":")
    if host is not None and not _HOST.fullmatch(host) and not _PATH.fullmatch(host):
        return f"{host!r} is not a valid registry host"
    if colon and not _TAG.fullmatch(tag):
        return f"{tag!r} is not a valid tag"
    return _path_problem(path)


def full_name(reference: str) -> str:
    """Return a valid reference as containerd pulls it: `busybox` -> `docker.io/library/busybox:latest`.

    Only the digest of a reference with tag and digest counts. The host, a DNS name, is in lower case. CRI-O
    can be configured to look for names without a host in other registries.
    """
    named, at, digest = reference.partition("@")
    name, tag = _named(named)
    return f"{name}@{digest}" if at else f"{name}:{tag or 'latest'}"


def prefix_problem(prefix: str) -> str | None:
    """Return why a prefix of image names is invalid, or None."""
    body = prefix.removesuffix("/")
    if body == prefix:
        name = re.split("[:@]", body)[0]
        is_registry = "/" not in body and ("." in name or name == "localhost")
        return "a registry must end with '/'" if is_registry else problem(prefix)
    if "/" not in body and _split(prefix)[0] is not None:
        return None if _HOST.fullmatch(body) else f"{body!r} is not a valid registry host"
    if "@" in body or ":" in _split(body)[1]:
        return "a tag or digest must not be followed by '/'"
    return problem(body)


def full_prefix(prefix: str) -> str:
    """Return a valid prefix in the form of `full_name`: `biocontainers/` -> `docker.io/biocontainers/`."""
    named, at, digest = prefix.partition("@")
    name, tag = _named(named)
    return f"{name}@{digest}" if at else f"{name}:{tag}" if tag else name


def has_prefix(name: str, prefix: str) -> bool:
    """Return whether a full name begins with a full prefix and has a boundary (`/`, `:`, `@`) after it."""
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and (prefix.endswith("/") or rest[:1] in {"", "/", ":", "@"})


def _named(named: str) -> tuple[str, str]:
    """Return a name without digest in its full form, and its tag. A host alone (`quay.io/`) stays one."""
    host, repository = _split(named)
    path, _, tag = repository.partition(":")
    if host is None or host in _HUB_ALIASES:
        host = _HUB
        path = path if "/" in path or not path else f"library/{path}"
    lower = host.lower()  # a host name; without a dot or port, only its capitals make it one
    return f"{lower if _split(f'{lower}/{path}')[0] else host}/{path}", tag


def _split(named: str) -> tuple[str | None, str]:
    """Split off the registry's host: a first part with a dot, a port or capitals, or `localhost`.

    Runtimes parse a first part with underscores as part of the repository, and still use it as the host.
    """
    first, slash, rest = named.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    return (first, rest) if slash and is_host else (None, named)


def _path_problem(path: str) -> str | None:
    if path != path.lower():
        return f"the repository {path!r} must be lower case"
    if not _PATH.fullmatch(path):
        return f"{path!r} is not a valid repository name"
    if len(path) > _PATH_CHARACTERS:
        return f"the repository name has {len(path)} characters; the maximum is {_PATH_CHARACTERS}"
    if _IDENTIFIER.fullmatch(path):
        return "64 hexadecimal digits are an image identifier, not an image name"
    return None
