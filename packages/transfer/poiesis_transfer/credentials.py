"""The filer's identity at S3. botocore, slow to load, is used only if no keys are configured."""

import threading
from typing import Any, Protocol

from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Permanent, Retryable
from poiesis_transfer.sigv4 import Credentials


class Identity(Protocol):
    """A source of credentials, which may change while a filer runs."""

    def credentials(self) -> Credentials | None:
        """Return the credentials for the next request; None to send it unsigned. Raise TransferError."""


class StaticCredentials:
    """Configured keys, or unsigned requests."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    def credentials(self) -> Credentials | None:
        """Return the configured keys."""
        return self._credentials


class DefaultChain:
    """AWS' default chain:

    web identity (IRSA), container and instance roles, profiles. It renews credentials.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._lock = threading.Lock()
        self._found: Any = None

    def credentials(self) -> Credentials | None:
        """Return current credentials.

        Raise Permanent if there is no identity, Retryable if it does not respond.
        """
        import botocore.exceptions

        try:
            with self._lock:
                if self._found is None:
                    self._found = _search(self._region)
                frozen = self._found.get_frozen_credentials()
        except (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.CredentialRetrievalError,
            botocore.exceptions.MetadataRetrievalError,
        ) as error:
            raise Retryable(f"cannot get AWS credentials: {type(error).__name__}") from error
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise Permanent(f"cannot get AWS credentials: {_reason(error)}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


def identity(config: S3Config) -> Identity:
    """Return the identity for a configuration."""
    if config.anonymous:
        return StaticCredentials(None)
    if config.access_key_id is not None and config.secret_access_key is not None:
        return StaticCredentials(
            Credentials(config.access_key_id, config.secret_access_key, config.session_token)
        )
    return DefaultChain(config.region)


def _search(region: str) -> Any:
    """Search the chain. `region` selects the STS endpoint, because botocore does not read AWS_REGION."""
    import botocore.session

    session = botocore.session.get_session()
    session.set_config_variable("region", region)
    # Keys in the environment belong to the deployment and are read by `config`; another entry must not use
    # them.
    session.get_component("credential_provider").remove("env")
    found = session.get_credentials()
    if found is None:
        raise Permanent("the service has no S3 credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)")
    return found


def _reason(error: Exception) -> str:
    """Return the error code of STS or the type of the error, whose text may contain secrets."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)
