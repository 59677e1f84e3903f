"""A filer in a container of docker's, started as a TaskPod starts it."""

import json
import os
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from lab import docker
from lab.shell import CommandFailed, wait_until

USER = "65532:65532"
GRACE_SECONDS = 30
_SECONDS = 300  # a filer that is not done by then hangs
_PROGRESS = Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "docs/filers/progress.schema.json").read_text())
)
_LINE_BYTES = 16 * 1024
_DISK_BYTES = 10**10  # what the chart gives who asks for nothing
_DOCKER_FAILED = 125


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The filer under test. `secret`: files in /poiesis/secret. `secrets`: what it may never tell.

    `shared`: its shared volumes, path below /poiesis/shared -> directory of this machine.
    """

    image: str
    command: tuple[str, ...]
    network: str = "bridge"
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    shared: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended: its exit code, and what it told, of this start and of those before in the same Pod."""

    exit_code: int
    events: tuple[dict[str, Any], ...]
    log: str

    def told(self, event: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [one for one in self.events if one["event"] == event]

    @property
    def messages(self) -> str:
        """Warnings and errors."""
        return "\n".join(one["message"] for one in self.events if one["event"] in {"warning", "error"})


def pod_arguments(
    command: Sequence[str], volumes: Mapping[str, str], env: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """docker's options before the image, and what follows it. `volumes`: path in the container -> source.

    A unit test holds this against what the api gives Kubernetes.
    """
    options = ["--user", USER, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    for name, value in env.items():
        options += ["--env", f"{name}={value}"]
    for path, source in volumes.items():
        options += ["--volume", f"{source}:{path}"]
    helper = ["run", "--run", "/poiesis/run", "--runs", "/poiesis/runs", "--log-bytes", "65536"]
    helper += ["--grace", str(GRACE_SECONDS), "--ack", "/poiesis/ack/done", "--ack-timeout", "60"]
    return [*options, "--entrypoint", "/poiesis/bin/helper"], [*helper, "--rerun", "--", *command]


class Pod:
    """The volumes of one TaskPod, in which a filer may be started several times."""

    def __init__(self, subject: Subject, helper: Path, folder: Path) -> None:
        self.subject = subject
        self.root = folder / "task/root"
        self._helper = helper
        self._folder = folder
        for name in ("run", "ack", "task", "task/root", "spec", "secret"):
            self.directory(folder / name)
        (folder / "ack/done").write_text(
            "1"
        )  # the recorder's word, for which the helper waits after a failure
        for name, text in subject.secret.items():
            (folder / "secret" / name).write_text(text)
            (folder / "secret" / name).chmod(0o644)

    @staticmethod
    def directory(path: Path) -> None:
        """For any uid, as the recorder makes them."""
        path.mkdir()
        path.chmod(0o777)

    def work(self, work: Mapping[str, Any], contents: Mapping[str, str] | None = None) -> None:
        """The work list, and the literal contents beside it."""
        for name, text in {"work.json": json.dumps(work, ensure_ascii=False), **(contents or {})}.items():
            (self._folder / "spec" / name).write_text(text)
            (self._folder / "spec" / name).chmod(0o644)

    def run(self, *, network: str | None = None, options: Sequence[str] = ()) -> Ended:
        """Start the filer and wait for its end."""
        name = _new_name()
        command = [docker.binary(), "run", "--rm", *self._arguments(name, network, options)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            docker.docker("rm", "--force", name)
            raise
        log = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert done.returncode != _DOCKER_FAILED, log
        ended = Ended(exit_code=done.returncode, events=tuple(self._events()), log=log)
        everything = log + json.dumps(ended.events, ensure_ascii=False)
        for secret in self.subject.secrets:
            assert secret not in everything, "the filer told a credential"
        return ended

    def interrupted(self, signal: str) -> None:
        """Start it, and signal it as soon as its process runs."""
        started, name = self._folder / "run/started", _new_name()
        docker.docker("run", "--detach", *self._arguments(name, None, ()))
        try:
            wait_until(started.exists, "the filer's process", seconds=_SECONDS)
            _kill(name, signal)
            docker.docker("wait", name, timeout=_SECONDS)
        finally:
            docker.docker("rm", "--force", name)

    def _arguments(self, name: str, network: str | None, options: Sequence[str]) -> list[str]:
        before, after = pod_arguments(self.subject.command, self._volumes(), self._env())
        where = ["--name", name, "--network", network or self.subject.network]
        return [*where, *before, *options, self.subject.image, *after]

    def _volumes(self) -> dict[str, str]:
        mounts = {
            "/poiesis/bin": f"{self._helper}",
            "/poiesis/run": f"{self._folder / 'run'}",
            "/poiesis/runs": f"{self._folder / 'run'}",
            "/poiesis/ack": f"{self._folder / 'ack'}",
            "/task": f"{self._folder / 'task'}",
            "/poiesis/spec": f"{self._folder / 'spec'}",
        }
        if self.subject.secret:
            mounts["/poiesis/secret"] = f"{self._folder / 'secret'}"
        shared = {f"/poiesis/shared{prefix}": f"{source}" for prefix, source in self.subject.shared.items()}
        written = {"/poiesis/run", "/task", *shared}
        return {
            (path if path in written else f"{path}:ro"): source for path, source in (mounts | shared).items()
        }

    def _env(self) -> dict[str, str]:
        own = {
            "POIESIS_RUN": "/poiesis/run",
            "POIESIS_WORK_LIST": "/poiesis/spec/work.json",
            "POIESIS_DISK_BYTES": str(_DISK_BYTES),
        }
        if self.subject.secret:
            own["POIESIS_SECRET"] = "/poiesis/secret"
        return {**own, **self.subject.env}

    def _events(self) -> Iterator[dict[str, Any]]:
        progress = self._folder / "run/progress.jsonl"
        for line in progress.read_bytes().splitlines() if progress.exists() else ():
            assert len(line) <= _LINE_BYTES, f"a line of {len(line)} bytes"
            event = json.loads(line)
            _PROGRESS.validate(event)
            yield event


def _kill(name: str, signal: str) -> None:
    """A filer that was faster has ended by itself."""
    try:
        docker.docker("kill", "--signal", signal, name)
    except CommandFailed as error:
        if "is not running" not in error.output:
            raise


def _new_name() -> str:
    return f"poiesis-kit-{uuid.uuid4().hex[:12]}"


def install_helper(image: str, folder: Path) -> None:
    """As the recorder does it; `image` is the helper's."""
    folder.mkdir()
    folder.chmod(0o777)
    where = ["--volume", f"{folder}:/poiesis/bin", "--user", f"{os.getuid()}:{os.getgid()}"]
    docker.docker("run", "--rm", *where, "--entrypoint", "/helper", image, "install", "--bin", "/poiesis/bin")


def argv(text: str) -> tuple[str, ...]:
    """As a shell splits it."""
    return tuple(shlex.split(text))
