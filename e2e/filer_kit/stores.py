"""Where the kit puts what a filer shall stage, and looks for what it has sent.

A name is a relative path; `url` is how a TES document names it for the filer under test.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from lab.backends import Remote
from storage import Endpoint

_ABSENT = 3


class Store(Protocol):
    """Bytes by name."""

    def url(self, name: str) -> str:
        """Of the object, or of the directory of that name."""

    def put(self, name: str, data: bytes) -> None:
        """Store it, with the directories above it."""

    def get(self, name: str) -> bytes | None:
        """What is stored; None if nothing is."""


@dataclass(frozen=True)
class S3Bucket:
    """A bucket; keys are literal."""

    endpoint: Endpoint
    bucket: str

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def put(self, name: str, data: bytes) -> None:
        self.endpoint.client().put_object(Bucket=self.bucket, Key=name, Body=data)

    def get(self, name: str) -> bytes | None:
        s3 = self.endpoint.client()
        try:
            data: bytes = s3.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return data


@dataclass(frozen=True)
class Server:
    """One of the lab's servers of files; `scheme` is how the filer calls its protocol."""

    scheme: str
    remote: Remote

    def url(self, name: str) -> str:
        return f"{self.scheme}://{self.remote.pod_address}/{quote(name)}"

    def put(self, name: str, data: bytes) -> None:
        self.remote.put({name: data})

    def get(self, name: str) -> bytes | None:
        return self.remote.get(name)


@dataclass(frozen=True)
class SharedDirectory:
    """A directory of this machine that the filer has as a shared volume below `prefix`."""

    directory: Path
    prefix: str

    def url(self, name: str) -> str:
        return f"file://{self.prefix}/{quote(name)}"

    def put(self, name: str, data: bytes) -> None:
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
    """A program of one's own: `url NAME` prints the URL, `put NAME` reads and `get NAME` writes the bytes.

    `get` exits with 3 if there is nothing.
    """

    path: str

    def url(self, name: str) -> str:
        return self._run("url", name).decode().strip()

    def put(self, name: str, data: bytes) -> None:
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
