"""The server's certificate, reloaded when its files change.

A volume of a Secret replaces all its files at once, by a symbolic link. A certificate that cannot be loaded
leaves the previous one in use.
"""

import asyncio
import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0


class CertificateError(Exception):
    """The files must be a certificate with its key; the message names them."""


class Certificate:
    """The files, and the context made of them for new connections."""

    def __init__(self, certificate_file: Path, key_file: Path) -> None:
        """Raise CertificateError."""
        self._files = certificate_file, key_file
        self._failure = ""  # the last one that was logged
        self._seen = self._contents()
        self.context = self._load()

    async def watch(self) -> None:
        """Reload the files when they have changed, until canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.reload()

    def reload(self) -> None:
        """Use the files if they have changed. Log an error, once per change, if they cannot be used."""
        try:
            found = self._contents()
            if found == self._seen:
                return
            context = self._load()
            if self._contents() != found:
                return  # replaced in between: at the next look
        except CertificateError as error:
            self._report(str(error))
        else:
            self.context, self._seen, self._failure = context, found, ""
            logger.info("certificate reloaded")

    def _report(self, failure: str) -> None:
        if failure != self._failure:
            logger.error("cannot load the certificate; using the previous one", extra={"error": failure})
        self._failure = failure

    def _contents(self) -> tuple[bytes, ...]:
        try:
            return tuple(path.read_bytes() for path in self._files)
        except OSError as error:
            raise CertificateError(f"cannot read {error.filename}: {error.strerror}") from error

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CertificateError(
                f"{certificate} and {key} must be a certificate with its key: {error}"
            ) from error
        return context


def _no_password() -> str:
    """Fail on an encrypted key instead of asking for its password on the terminal."""
    raise ValueError("the key is encrypted")
