"""The connections that inputs are read through, opened when the first input needs them.

An import that no input needs is not made: every task would pay for it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from poiesis_transfer import pool
from poiesis_transfer.config import Config, S3Config

if TYPE_CHECKING:
    from poiesis_transfer.stores import S3Stores
    from poiesis_transfer.web import Web


class Clients:
    """One client per kind of store, shared by all inputs of a filer. Any thread may call.

    Use it as a context manager: it closes the connections. All clients together send at most
    `pool.CONCURRENCY` requests at a time.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._slots = pool.slots()
        self._lock = threading.Lock()
        self._web: Web | None = None
        self._s3: S3Stores | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._web is not None:
            self._web.close()
        if self._s3 is not None:
            self._s3.close()

    @property
    def web(self) -> Web:
        """Return the client for URLs that users name, which may lead only to allowed addresses."""
        with self._lock:
            if self._web is None:
                from poiesis_transfer.web import Web

                self._web = Web(
                    allowed=self._config.allowed, trusted=_own_storage(self._config.s3), slots=self._slots
                )
            return self._web

    @property
    def s3(self) -> S3Stores:
        """Return the client for `s3://` URLs."""
        with self._lock:
            if self._s3 is None:
                from poiesis_transfer.stores import S3Stores

                self._s3 = S3Stores(self._config.s3, self._config.credentials, slots=self._slots)
            return self._s3

    def interrupt(self) -> None:
        """End all waits for the network."""
        if self._web is not None:
            self._web.interrupt()
        if self._s3 is not None:
            self._s3.interrupt()


def _own_storage(config: S3Config) -> frozenset[tuple[str, int]]:
    """Return host and port of the deployment's S3, for which users may have signed URLs."""
    from poiesis_transfer.web import Url

    if config.endpoint_url is None:
        return frozenset()
    url = Url.parse(config.endpoint_url)
    return frozenset({(url.host, url.port)})
