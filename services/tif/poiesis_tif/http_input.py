"""Inputs with `http://` and `https://` URLs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from poiesis_models.worklist import InputItem
from poiesis_tif.clients import Clients
from poiesis_tif.steps import Step, Target
from poiesis_transfer.errors import Permanent
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import shown

if TYPE_CHECKING:
    from poiesis_transfer import fetch


@dataclass(frozen=True)
class HttpInput(Step):
    """One file."""

    url: str

    def read(self, clients: Clients, sink: fetch.Sink, progress: Progress) -> None:
        """Write the body of the response to `sink`."""
        del progress
        from poiesis_transfer.http_object import fetch_url

        fetch_url(clients.web, self.url, sink)


def http_input(target: Target, item: InputItem) -> Step:
    """Return the step for an input. Raise Permanent for a directory."""
    url = item.url or ""
    if item.type == "DIRECTORY":
        raise Permanent(
            f"input {item.path} cannot be a DIRECTORY: HTTP cannot list directories ({shown(url)})"
        )
    return HttpInput(target, url)
