"""Stores for the objects that a filer stages or sends.

A name is a relative path; `url` returns its URL in a TES document for the filer under test.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from poiesis_e2e.storage import Endpoint
from poiesis_lab.backends import Remote

ODD_NAMES = ("sp ace+&=.txt", "ünï \U0001f9ec.txt", "a%20b#c?d.txt", "'q\"u`o$te;\\.txt")
_ABSENT = 3


class Store(Protocol):
    """Objects by name."""

    def url(self, name: str) -> str:
        """Return the URL of the object or directory of that name."""

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store files by name; create their parent directories."""

    def get(self, name: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""


@dataclass(frozen=True)
class S3Bucket:
    """A bucket; keys are literal."""

    endpoint: Endpoint
    bucket: str

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def get(self, name: str) -> bytes | None:
        try:
            data: bytes = self._client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        return data

    @cached_property
    def _client(self) -> Any:
        return self.endpoint.client()


@dataclass(frozen=True)
class Server:
    """One of the lab's file servers; `scheme`: the URL scheme that the filer uses."""

    scheme: str
    remote: Remote

    def url(self, name: str) -> str:
        return f"{self.scheme}://{self.remote.pod_address}/{quote(name)}"

    def put(self, files: Mapping[str, bytes]) -> None:
        self.remote.put(files)

    def get(self, name: str) -> bytes | None:
        return self.remote.get(name)


@dataclass(frozen=True)
class SharedDirectory:
    """A directory of this machine that the filer mounts as a shared volume below `prefix`."""

    directory: Path
    prefix: str

    def url(self, name: str) -> str:
        return f"file://{self.prefix}/{quote(name)}"

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.relative_to(self.directory).parents:
                (self.directory / folder).chmod(0o777)
            path.write_bytes(data)

    def get(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.is_file() else None


@dataclass(frozen=True)
class Program:
    """A custom program: `url NAME` prints the URL, `put NAME` reads stdin, `get NAME` writes to stdout.

    `get` exits with 3 if the object does not exist.
    """

    path: str

    def url(self, name: str) -> str:
        return self._run("url", name).decode().strip()

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._run("put", name, data)

    def get(self, name: str) -> bytes | None:
        try:
            return self._run("get", name)
        except subprocess.CalledProcessError as error:
            if error.returncode == _ABSENT:
                return None
            raise

    def _run(self, verb: str, name: str, data: bytes = b"") -> bytes:
        done = subprocess.run([self.path, verb, name], input=data, stdout=subprocess.PIPE, check=True)
        return done.stdout
