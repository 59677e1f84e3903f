"""The two ways in which a request to the Kubernetes API fails."""


class KubernetesError(Exception):
    """A request to the Kubernetes API failed."""


class Unreachable(KubernetesError):
    """There is no usable response: no credentials, no connection, a timeout, or something other than JSON."""


class Refused(KubernetesError):
    """The API server responded with an error status; the fields are those of its `Status` object.

    `retry_after`: seconds until the request may be repeated, None if the response does not contain them.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        """Whether the object does not exist."""
        return self.status == 404  # noqa: PLR2004

    @property
    def conflict(self) -> bool:
        """Whether the object exists, or is not the one that was meant (uid, resourceVersion)."""
        return self.status == 409  # noqa: PLR2004

    @property
    def already_exists(self) -> bool:
        """Whether an object with this name exists. A 409 may also mean that a quota changed meanwhile."""
        return self.reason == "AlreadyExists"
