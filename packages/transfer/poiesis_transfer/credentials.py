"""Who the filer is at S3. botocore, slow to load, is asked only where no keys are given."""

import threading
from typing import Any, Protocol

from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Retryable, Permanent
from poiesis_transfer.sigv4 import Credentials


class Identity(Protocol):
    """Credentials that may change while a filer works."""

    def credentials(self) -> Credentials | None:
        """To sign the next request with; None: requests are not signed. Raise TransferError."""


class StaticCredentials:
    """Keys, or none at all."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    def credentials(self) -> Credentials | None:
        """Always the same."""
        return self._credentials


class DefaultChain:
    """AWS' standard chain: web identity (IRSA), container and instance roles, profiles. Renewed in time."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._lock = threading.Lock()
        self._found: Any = None

    def credentials(self) -> Credentials | None:
        """Raise Permanent where there is no identity, Retryable where there is one that does not answer."""
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
    """The one that is configured."""
    if config.anonymous:
        return StaticCredentials(None)
    if config.access_key_id is not None and config.secret_access_key is not None:
        return StaticCredentials(Credentials(config.access_key_id, config.secret_access_key, config.session_token))
    return DefaultChain(config.region)


def _search(region: str) -> Any:
    """`region`: whose STS is asked. AWS_REGION alone does not tell botocore."""
    import botocore.session

    session = botocore.session.get_session()
    session.set_config_variable("region", region)
    # Keys in the environment are the deployment's, and `config` has read them: here they would be another's.
    session.get_component("credential_provider").remove("env")
    found = session.get_credentials()
    if found is None:
        raise Permanent("the service has no S3 credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)")
    return found


def _reason(error: Exception) -> str:
    """The code of STS' answer, or the kind of the failure: their texts may hold more."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)
