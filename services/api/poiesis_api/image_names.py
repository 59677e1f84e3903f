"""Names of container images as runtimes parse them (the reference grammar of the CNCF distribution). Pure."""

import re

_PATH_CHARACTERS = 255

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
