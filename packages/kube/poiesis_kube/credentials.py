"""Where the API server is and how to log in to it, from the official client's configuration."""

import os
import ssl
from pathlib import Path

from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

from poiesis_kube.errors import Unreachable


async def load_configuration(kubeconfig: str | None = None) -> Configuration:
    """Return the configuration of `kubeconfig`, else of the Pod's ServiceAccount, else of ~/.kube/config.

    Raise Unreachable if there are no credentials.
    """
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    file = kubeconfig or (None if in_pod else _default_kubeconfig())
    if file is None and not in_pod:
        raise Unreachable("no credentials for Kubernetes: not in a Pod, and KUBECONFIG is not set")
    configuration = Configuration()
    try:
        if file is not None:
            await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=file, client_configuration=configuration, persist_config=False
            )
        else:
            kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
    except (kubernetes_config.ConfigException, OSError) as error:
        raise Unreachable(f"no credentials for Kubernetes: {error}") from error
    return configuration


def _default_kubeconfig() -> str | None:
    path = Path("~/.kube/config").expanduser()
    return str(path) if path.exists() else None


async def authorization(configuration: Configuration) -> str | None:
    """Return the Authorization header with the current token. Raise Unreachable if it cannot be read.

    The official client reads a ServiceAccount's token again every minute, and renews those of plugins.
    """
    try:
        settings = await configuration.auth_settings()
    except (kubernetes_config.ConfigException, OSError) as error:
        raise Unreachable(f"no credentials for Kubernetes: {error}") from error
    token = settings.get("BearerToken")
    return token["value"].strip() if token is not None and token["value"] else None


def tls_context(configuration: Configuration) -> ssl.SSLContext | bool:
    """Return the TLS settings for the API server; True (the default) if it is reached by plain HTTP."""
    if not str(configuration.host).startswith("https:"):
        return True
    context = ssl.create_default_context(
        cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data or None
    )
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # The CAs of many clusters lack the key identifiers that Python 3.13 requires by default.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    return context
