"""The requests that submission sends to Kubernetes. Each may be repeated, by any replica."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from poiesis_api.config import ConfigError
from poiesis_kube import client
from poiesis_kube.client import Answer
from poiesis_kube.errors import Unreachable
from poiesis_kube.namespace import Namespace

Manifest = dict[str, Any]

REQUEST_SECONDS = 10.0


class Kubernetes(Namespace):
    """One namespace of tasks. Every call raises Refused or Unreachable."""

    async def unsuspend(self, job: str) -> None:
        """Let the Job controller create the Pod."""
        await self.patch("Job", job, {"spec": {"suspend": False}})

    async def delete_job(self, job: str) -> None:
        """Delete the Job and all that it owns. A Job that does not exist is no error."""
        await self.delete("Job", job)


class Cluster:
    """The namespaces of one API server. `home`: that of tasks without a namespace of their own."""

    def __init__(self, kubernetes: Callable[[str], Kubernetes], home: str) -> None:
        self._kubernetes = kubernetes
        self.home = home

    def namespace(self, name: str | None) -> Kubernetes:
        """Return a namespace by its name; None is `home`."""
        return self._kubernetes(name or self.home)


@asynccontextmanager
async def connect(home: str, *, observe: Callable[[Answer], None]) -> AsyncIterator[Cluster]:
    """Open a client for as long as the block lasts. Raise ConfigError if there are no credentials.

    `home`: the namespace of the api. `observe`: called with every answer of the API server.
    """
    async with AsyncExitStack() as stack:
        kubeconfig = os.environ.get("KUBECONFIG")
        opening = client.connect(kubeconfig, request_seconds=REQUEST_SECONDS, observe=observe)
        try:
            api = await stack.enter_async_context(opening)
        except Unreachable as error:
            raise ConfigError(str(error)) from error
        yield Cluster(partial(Kubernetes, api), home)
