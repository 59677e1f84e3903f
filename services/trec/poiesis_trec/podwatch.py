"""This Pod's status, for what files do not contain: failed image pulls, out-of-memory kills.

The watch is optional. The controller grants the right to watch after it has seen the Pod, or never. So every
failure is retried indefinitely, and nothing waits for the watch. A recorder that works from files only has no
status, and the controller reports what it would contain.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import randint
from typing import Any, Protocol
from urllib.parse import quote

from poiesis_trec import https
from poiesis_trec.backoff import RetryDelay
from poiesis_trec.config import KubernetesApi, PodRef
from poiesis_trec.facts import PodView
from poiesis_trec.https import HttpError

logger = logging.getLogger(__name__)

_RESPONSE_SECONDS = 10.0
_WATCH_SECONDS = 300  # the server ends a watch then, which bounds the life of a dead connection
_STEADY_SECONDS = 10.0  # a watch that lasted this long resets the back-off
_POLL_SECONDS = 3.0  # for the Pod's status in shutdown
_OK = 200


class PodUnknown(Exception):
    """The API server did not return the Pod."""


class PodStatus(Protocol):
    """The status of this Pod."""

    @property
    def view(self) -> PodView | None:
        """The last known status, or None as long as it is unknown."""

    async def run(self) -> None:
        """Keep `view` up to date, indefinitely if there is a source."""

    async def poll(self, condition: Callable[[PodView], bool]) -> bool:
        """Read the status until it fulfils the condition, for a few seconds. Return whether it does."""


class NoPodStatus:
    """The status of a Pod without access to the Kubernetes API: unknown."""

    view = None

    async def run(self) -> None:
        """Return at once."""

    async def poll(self, condition: Callable[[PodView], bool]) -> bool:  # noqa: ARG002 (of the protocol)
        """Return False at once."""
        return False


class PodWatch:
    """A watch of the Pod. `view` is the last known status; `changed` is set when there is a new one."""

    def __init__(self, api: KubernetesApi, pod: PodRef, changed: asyncio.Event) -> None:
        self._api, self._pod, self._changed = api, pod, changed
        self._last_error = ""
        self.view: PodView | None = None

    async def run(self) -> None:
        """Watch indefinitely."""
        clock = asyncio.get_running_loop().time
        backoff = RetryDelay(0.2, 30.0)
        while True:
            began = clock()
            try:
                async for view in self._views():
                    self._update(view)
            except (PodUnknown, HttpError, OSError) as error:
                self._log_error(error)
            if clock() - began > _STEADY_SECONDS:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def poll(self, condition: Callable[[PodView], bool]) -> bool:
        """Read the status, which the kubelet updates a moment after an event, until the condition holds."""
        backoff = RetryDelay(0.2, 0.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                while True:
                    try:
                        view = await self.fetch()
                    except PodUnknown as error:
                        logger.info("cannot read the Pod's status: %s", error)
                    else:
                        if condition(view):
                            return True
                    await asyncio.sleep(backoff.next())
        return False

    async def fetch(self) -> PodView:
        """Return the current status. Raise PodUnknown."""
        try:
            async with (
                self._request(f"/{quote(self._pod.name)}") as response,
                asyncio.timeout(_RESPONSE_SECONDS),
            ):
                view = _view(_object(await response.body()))
        except (HttpError, OSError) as error:
            raise PodUnknown(f"{type(error).__name__}: {error}") from error
        self._update(view)
        return view

    async def _views(self) -> AsyncIterator[PodView]:
        seconds = randint(_WATCH_SECONDS * 3 // 4, _WATCH_SECONDS)  # noqa: S311 (spreads load)
        query = f"?watch=1&fieldSelector=metadata.name%3D{quote(self._pod.name)}&timeoutSeconds={seconds}"
        # Without resourceVersion the first event is the current Pod: no list, and 410 Gone does not occur.
        async with self._request(query) as response, asyncio.timeout(seconds + _RESPONSE_SECONDS):
            async for line in response.lines():
                event = _object(line)
                pod = event.get("object")
                if event.get("type") == "ERROR" or not isinstance(pod, dict):
                    raise PodUnknown(f"the watch ended: {_status_message(pod)}")
                self._last_error = ""
                yield _view(pod)

    @asynccontextmanager
    async def _request(self, rest: str) -> AsyncIterator[https.Response]:
        token = self._api.token_file.read_text(encoding="ascii", errors="replace").strip()
        tls = ssl.create_default_context(cafile=str(self._api.ca_file))
        target = f"/api/v1/namespaces/{quote(self._pod.namespace)}/pods{rest}"
        async with https.get(self._api.host, self._api.port, target, token=token, tls=tls) as response:
            if response.status != _OK:
                raise PodUnknown(f"HTTP {response.status} {response.reason}")
            yield response

    def _update(self, view: PodView) -> None:
        if view != self.view:
            self.view = view
            self._changed.set()

    def _log_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._last_error:
            self._last_error = text
            logger.info("cannot watch the Pod: %s", text)


def _view(pod: dict[str, Any]) -> PodView:
    try:
        return PodView.from_json(pod)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HttpError(f"not a Pod: {error!r}") from error


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HttpError("not JSON") from error
    if not isinstance(value, dict):
        raise HttpError("not a JSON object")
    return value


def _status_message(status: Any) -> str:
    """Return the message of a core/v1 Status."""
    if not isinstance(status, dict):
        return "not an object"
    return f"{status.get('code')} {status.get('reason')}: {status.get('message')}"
