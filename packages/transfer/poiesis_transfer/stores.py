"""All S3 stores that a filer uses: which store and which credentials serve a URL."""

import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import Self

from poiesis_models.s3credentials import Choice, S3Credentials
from poiesis_transfer import pool, web
from poiesis_transfer.config import S3Config
from poiesis_transfer.credentials import identity
from poiesis_transfer.errors import Permanent
from poiesis_transfer.fetch import Sink
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.s3 import S3Object, S3Store
from poiesis_transfer.urls import S3Url
from poiesis_transfer.web import Web


class S3Stores:
    """All stores behind the interface of one.

    Each URL uses the credentials entry with the longest matching prefix, or the deployment's own credentials.
    Use it as a context manager: it closes the connections. Nothing is sent before the first transfer, and an
    entry's keys are read with its first URL, so an invalid entry affects only its own URLs. `slots` limits
    concurrent requests and can be shared. Connections may lead to any address, because operators choose the
    endpoints.
    """

    def __init__(
        self,
        config: S3Config,
        entries: Sequence[S3Credentials] = (),
        *,
        limits: web.Limits = web.LIMITS,
        retry: Retry = web.RETRY,
        slots: threading.BoundedSemaphore | None = None,
    ) -> None:
        self._config = config
        self._choice = Choice(entries)
        self._limits = limits
        self._retry = retry
        self._slots = slots or pool.slots()
        self._lock = threading.Lock()
        self._webs: dict[str | None, Web] = {}
        self._stores: dict[str | None, S3Store] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for connections in self._webs.values():
            connections.close()

    def interrupt(self) -> None:
        """End all waits for the network."""
        with self._lock:
            webs = list(self._webs.values())
        for connections in webs:
            connections.interrupt()

    def list(self, directory: S3Url) -> Iterator[S3Object]:
        """Return all objects below a directory, sorted by key."""
        return self._of(directory).list(directory)

    def is_directory(self, url: S3Url) -> bool:
        """Return whether there are keys below the URL."""
        return self._of(url).is_directory(url)

    def is_object(self, url: S3Url) -> bool:
        """Return whether there is an object at the key."""
        return self._of(url).is_object(url)

    def download(self, source: S3Url, destination: Sink) -> None:
        """Write an object to `destination`."""
        self._of(source).download(source, destination)

    def upload(self, source: SourceFile, target: S3Url, progress: Progress) -> None:
        """Store a file."""
        self._of(target).upload(source, target, progress)

    def _of(self, url: S3Url) -> S3Store:
        """Return the store for a URL.

        Raise Permanent, with the name of the entry, for unusable credentials.
        """
        entry = self._choice.closest(str(url))
        name = entry.name if entry else None
        with self._lock:
            if name not in self._stores:
                config = self._config.for_entry(entry) if entry else self._config
                self._stores[name] = S3Store(config, self._web(config), identity(config))
            return self._stores[name]

    def _web(self, config: S3Config) -> Web:
        """Return the connections for a set of trusted certificates, shared by all stores that use the set."""
        if config.ca_bundle not in self._webs:
            self._webs[config.ca_bundle] = Web(
                limits=self._limits, retry=self._retry, tls=_tls(config), slots=self._slots
            )
        return self._webs[config.ca_bundle]


def _tls(config: S3Config) -> ssl.SSLContext | None:
    if not config.ca_bundle:
        return None
    try:
        return ssl.create_default_context(cafile=config.ca_bundle)
    except OSError as error:
        whose = f"credentials {config.name}" if config.name else "AWS_CA_BUNDLE"
        raise Permanent(f"{whose}: {config.ca_bundle} contains no certificates") from error
