"""Create the Secrets of a release that do not exist, and renew certificates that expire.

POIESIS_SETUP is the document, POD_NAMESPACE the namespace. Runs at the same time do no harm.

Exit 0: every Secret is as it should be. Exit 1: one is not, and the log states which and why; those before
it in the log are. Exit 2: invalid configuration, or no credentials for Kubernetes.
"""

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from poiesis_kube.client import connect
from poiesis_kube.errors import KubernetesError
from poiesis_kube.namespace import Namespace
from poiesis_models.logs import configure_logging
from poiesis_setup import decide, store
from poiesis_setup.decide import UnusableSecret
from poiesis_setup.document import ConfigError, Document, namespace_of

_PASSWORD_BYTES = 24  # 192 random bits, 32 characters of the URL-safe alphabet

logger = logging.getLogger("poiesis_setup")


async def run(namespace: Namespace, document: Document, now: datetime) -> None:
    """Check the operator's Secrets, then create and renew. Raise KubernetesError, UnusableSecret."""
    for wanted in document.required:
        decide.required(wanted, await store.read(namespace, wanted.secret))
    rotation = document.rotation
    if document.certificates:
        authority = await store.ensure(
            namespace,
            document.authority,
            rotation,
            lambda stored: decide.authority(document.authority, stored, now, rotation),
        )
        for certificate in document.certificates:
            await store.ensure(
                namespace,
                certificate.secret,
                rotation,
                lambda stored, one=certificate: decide.certificate(one, stored, authority, now, rotation),  # type: ignore[misc]
            )
    for passwords in document.passwords:
        await store.ensure(
            namespace,
            passwords.secret,
            rotation,
            lambda stored, one=passwords: decide.passwords(one, stored, rotation, _password),  # type: ignore[misc]
        )


def _password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


async def _connected(namespace: str, document: Document) -> None:
    async with connect() as client:
        await run(Namespace(client, namespace), document, datetime.now(UTC))


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    configure_logging()
    if arguments:
        logger.error("usage: python -m poiesis_setup (settings: POIESIS_SETUP, POD_NAMESPACE)")
        return 2
    try:
        document, namespace = Document.from_env(os.environ), namespace_of(os.environ)
    except ConfigError as error:
        logger.error("cannot start", extra={"error": str(error)})  # noqa: TRY400 - no traceback: not a defect
        return 2
    try:
        asyncio.run(_connected(namespace, document))
    except (KubernetesError, UnusableSecret) as error:
        logger.error("a Secret is not ready", extra={"error": str(error)})  # noqa: TRY400
        return 1
    logger.info("all Secrets are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
