"""The certificates that recorders verify the gateway with: read from a file, because they may be renewed."""

import ssl
from functools import lru_cache
from pathlib import Path

from poiesis_api.config import ConfigError, TaskPodConfig

MOST_BYTES = 64 * 1024  # every task's Secret has a copy


def gateway_ca(config: TaskPodConfig) -> str:
    """Return the PEM certificates of the gateway's authorities; empty with `recorder.transport` postgres.

    Raise ConfigError if the file is missing, too large, or without a certificate.
    """
    if config.recorder.transport != "gateway" or config.gateway is None:
        return ""
    path = Path(config.gateway.ca_file)
    try:
        return _checked(path)
    except OSError as error:  # including ssl.SSLError
        raise ConfigError(f"gateway.caFile: cannot use {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"gateway.caFile: cannot use {path}: {error}") from error


def _checked(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if not content:
        raise ValueError("the file is empty")
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file has more than {MOST_BYTES} bytes; keep only the gateway's authorities")
    return _certificates(content)


@lru_cache(maxsize=1)  # each submission reads the file, which seldom changes
def _certificates(content: bytes) -> str:
    text = content.decode("ascii")
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    return text
