"""The server and its credentials, from options, the environment and one TOML file.

    server = "lab"                      # a name below, or a URL

    [servers.lab]
    url = "https://tes.example.org"
    issuer = "https://login.example.org/realms/lab"   # for `poiesis login`
    client_id = "poiesis-cli"
    scope = "openid offline_access"
    # or token_file = "~/lab.token"; or user = "alice" and password_file = "~/lab.password"

Credentials are sent to one server only. Those of a section belong to the section's URL. If POIESIS_SERVER is
set, those of the environment belong to that server, even if `--server` names another.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarl import URL

from poiesis_cli.address import tes_base
from poiesis_cli.errors import BadUsage

_SECTION_KEYS = {"url", "token_file", "user", "password_file", "issuer", "client_id", "scope"}
_DEFAULT_SERVER = re.compile(r"^server[ \t]*=.*\n?", re.MULTILINE)  # keys outside of tables come first
DEFAULT_SCOPE = "openid offline_access"  # offline_access requests a refresh_token (OIDC Core 1.0, 11)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Parameters of `poiesis login`; None if not configured."""

    issuer: str | None = None
    client_id: str | None = None
    scope: str = DEFAULT_SCOPE


@dataclass(frozen=True, kw_only=True)
class Config:
    """One server and its credentials. `withheld`: the environment has credentials for another server."""

    base: URL
    identity: Identity = Identity()
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    withheld: bool = False


def read_config(environ: Mapping[str, str], *, server: str | None = None, file: str | None = None) -> Config:
    """Read the configuration; `server` is a URL or a section's name from the command line.

    Raise BadUsage with the key or variable in the message.
    """
    document = _document(environ, file)
    default = _string(document, "server", "server")
    chosen = server or environ.get("POIESIS_SERVER") or default
    if not chosen:
        raise BadUsage(
            "no server is configured",
            "use --server https://tes.example.org, set POIESIS_SERVER,"
            f' or add to {config_file(environ, file)}: server = "https://tes.example.org"',
        )
    sections = _sections(document)
    base, section = _resolve(chosen, sections)
    named = environ.get("POIESIS_SERVER")
    withheld = bool(server and named) and _resolve(named or "", sections)[0].origin() != base.origin()
    token, user, password = (None, None, None) if withheld else _of_environment(environ)
    if token is None and user is None:
        token, user, password = _of_section(section, environ)
    return Config(
        base=base,
        identity=_identity(environ, section),
        token=token,
        user=user,
        password=password,
        withheld=withheld and _of_environment(environ) != (None, None, None),
    )


def config_file(environ: Mapping[str, str], option: str | None = None) -> Path:
    """Return `--config`, POIESIS_CONFIG, or `poiesis/config.toml` in the XDG configuration directory."""
    given = option or environ.get("POIESIS_CONFIG")
    return _path(given, environ) if given else _xdg(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def server_names(environ: Mapping[str, str], option: str | None = None) -> Sequence[str]:
    """Return the names of the servers in the configuration file. Raise BadUsage."""
    return sorted(_sections(_document(environ, option)))


def set_default_server(environ: Mapping[str, str], name: str, option: str | None = None) -> Path:
    """Write `server = name` to the configuration file, and return the file. The rest of it is kept.

    Raise BadUsage if the file is invalid or cannot be written, or if it has no server of this name.
    """
    file = config_file(environ, option)
    document = _document(environ, option) if file.exists() else {}
    _resolve(name, _sections(document))
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    line = f"server = {json.dumps(name)}\n"
    changed = _DEFAULT_SERVER.sub(lambda _: line, text, count=1) if "server" in document else line + text
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(changed, encoding="utf-8")
    except OSError as error:
        raise BadUsage(f"cannot write {str(file)!r}: {os.strerror(error.errno or 0)}") from error
    return file


def logins_file(environ: Mapping[str, str]) -> Path:
    """Return the file for the tokens of `poiesis login`, in the XDG state directory."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "logins.json"


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    given = environ.get(variable, "")
    # XDG Base Directory Specification: a relative path is invalid and must be ignored.
    root = Path(given) if given.startswith("/") else _path(f"~/{default}", environ)
    return root / "poiesis"


def _path(text: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    return Path(home) / text[2:] if home and text.startswith("~/") else Path(text).expanduser()


def _document(environ: Mapping[str, str], option: str | None) -> Mapping[str, Any]:
    file = config_file(environ, option)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if option or environ.get("POIESIS_CONFIG"):
            raise BadUsage(f"no such configuration file: {str(file)!r}") from None
        return {}
    except OSError as error:
        raise BadUsage(f"cannot read {str(file)!r}: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise BadUsage(f"{file} is not valid TOML: {error}") from error


def _sections(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    if unknown := set(document) - {"server", "servers"}:
        raise BadUsage(f"configuration: unknown key {min(unknown)!r} (known: server, servers)")
    sections = document.get("servers", {})
    if not isinstance(sections, dict):
        raise BadUsage("configuration: servers must be a table, for example [servers.lab]")
    for name, section in sections.items():
        if not isinstance(section, dict) or "url" not in section:
            raise BadUsage(f"configuration: servers.{name} must be a table with a url")
        if unknown := set(section) - _SECTION_KEYS:
            known = ", ".join(sorted(_SECTION_KEYS))
            raise BadUsage(f"configuration: servers.{name}: unknown key {min(unknown)!r} (known: {known})")
        for key in section:
            _string(section, key, f"servers.{name}.{key}")
    return sections


def _resolve(chosen: str, sections: Mapping[str, Mapping[str, Any]]) -> tuple[URL, Mapping[str, Any]]:
    if chosen in sections:
        return tes_base(sections[chosen]["url"]), sections[chosen]
    if "/" not in chosen and sections and "." not in chosen and ":" not in chosen:
        names = ", ".join(sorted(sections))
        raise BadUsage(f"no server {chosen!r} in the configuration (configured: {names})")
    base = tes_base(chosen)
    return base, next((one for one in sections.values() if tes_base(one["url"]) == base), {})


def _identity(environ: Mapping[str, str], section: Mapping[str, Any]) -> Identity:
    return Identity(
        issuer=environ.get("POIESIS_ISSUER") or section.get("issuer"),
        client_id=environ.get("POIESIS_CLIENT_ID") or section.get("client_id"),
        scope=environ.get("POIESIS_SCOPE") or section.get("scope") or DEFAULT_SCOPE,
    )


def _of_environment(environ: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    token = environ.get("POIESIS_TOKEN") or _secret(
        environ.get("POIESIS_TOKEN_FILE"), "POIESIS_TOKEN_FILE", environ
    )
    user = environ.get("POIESIS_USER") or None
    if token or user is None:
        return (_header_safe(token, "POIESIS_TOKEN"), None, None) if token else (None, None, None)
    password = environ.get("POIESIS_PASSWORD") or _secret(
        environ.get("POIESIS_PASSWORD_FILE"), "POIESIS_PASSWORD_FILE", environ
    )
    if password is None:
        raise BadUsage("POIESIS_USER requires a password", "set POIESIS_PASSWORD or POIESIS_PASSWORD_FILE")
    return None, _user(user, "POIESIS_USER"), password


def _of_section(
    section: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str | None, str | None, str | None]:
    token = _secret(section.get("token_file"), "token_file", environ)
    user = section.get("user")
    if token or user is None:
        return _header_safe(token, "token_file") if token else None, None, None
    password = _secret(section.get("password_file"), "password_file", environ)
    if password is None:
        raise BadUsage("configuration: user requires password_file")
    return None, _user(user, "user"), password


def _secret(file: str | None, what: str, environ: Mapping[str, str]) -> str | None:
    """Return a file's text without surrounding white space. Error messages never contain the text."""
    if not file:
        return None
    try:
        text = _path(file, environ).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise BadUsage(f"{what}: {file!r} is not UTF-8 text") from None
    except OSError as error:
        raise BadUsage(f"{what}: cannot read {file!r}: {os.strerror(error.errno or 0)}") from error
    if not text:
        raise BadUsage(f"{what}: {file!r} is empty")
    return text


def _header_safe(token: str, what: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise BadUsage(f"{what} contains characters that a bearer token cannot have (RFC 6750 section 2.1)")
    return token


def _user(user: str, what: str) -> str:
    if ":" in user:
        raise BadUsage(f"{what} must not contain a colon (RFC 7617 section 2)")
    return user


def _string(table: Mapping[str, Any], key: str, what: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise BadUsage(f"configuration: {what} must be a string, got {value!r}")
    return value
