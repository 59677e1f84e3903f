"""Run a filer in a docker container as in a TaskPod.

Creating a container takes longer than most transfers. Therefore one container per filer is kept: its volumes
are emptied for each task, and the helper starts the filer in it. A test that needs its own container (another
network, a full volume, a signal) gets one in which the helper is process 1, as in a TaskPod.
"""

import json
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from poiesis_lab import docker
from poiesis_lab.shell import CommandFailed, wait_until

USER = "65532:65532"
GRACE_SECONDS = 30
_SECONDS = 300  # after this time a filer is considered hanging
_PROGRESS = Draft202012Validator(
    json.loads((Path(__file__).parents[3] / "docs/reference/filers/progress.schema.json").read_text())
)
_LINE_BYTES = 16 * 1024
_DISK_BYTES = 10**10  # the chart's default
_DOCKER_FAILED = 125
_DOCKER_ERRORS = ("Error response from daemon", "OCI runtime exec failed")
_HELPER = "/poiesis/bin/helper"
_WAIT = ("wait", "--ack", "/poiesis/ack/over", "--timeout", "7200")  # or until it is removed


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The filer under test. `secret`: files in /poiesis/secret. `secrets`: values that it must never log.

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
    """The result of a run: its exit code, and the events of this and earlier starts in the same Pod."""

    exit_code: int
    events: tuple[dict[str, Any], ...]
    log: str

    def of_kind(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [one for one in self.events if one["event"] == event]

    @property
    def messages(self) -> str:
        """Return the messages of warnings and errors."""
        return "\n".join(one["message"] for one in self.events if one["event"] in {"warning", "error"})


# A unit test compares these two functions with the Pods that the api creates.


def pod_options(volumes: Mapping[str, str], env: Mapping[str, str]) -> list[str]:
    """Return docker's options before the image. `volumes`: path in the container -> source."""
    options = ["--user", USER, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    for name, value in env.items():
        options += ["--env", f"{name}={value}"]
    for path, source in volumes.items():
        options += ["--volume", f"{source}:{path}"]
    return [*options, "--entrypoint", _HELPER]


def run_arguments(command: Sequence[str]) -> list[str]:
    """Return the helper's arguments that run a filer."""
    helper = ["run", "--run", "/poiesis/run", "--log-bytes", "65536"]
    helper += ["--grace", str(GRACE_SECONDS), "--ack", "/poiesis/ack/done", "--ack-timeout", "120"]
    return [*helper, "--rerun", "--", *command]


class Pod:
    """The volumes of a TaskPod; a filer may be started several times with them."""

    def __init__(self, subject: Subject, helper: Path, folder: Path) -> None:
        self.subject = subject
        self.root = folder / "task/root"
        self._helper = helper
        self._folder = folder
        self._kept: str | None = None
        for name in ("run", "ack", "task", "task/root", "spec", "secret"):
            self.directory(folder / name)
        # The recorder's acknowledgement, for which the helper waits after a failure.
        (folder / "ack/done").write_text("1")
        for name, text in subject.secret.items():
            (folder / "secret" / name).write_text(text)
            (folder / "secret" / name).chmod(0o644)

    @staticmethod
    def directory(path: Path) -> None:
        """Create a directory for any uid, as the recorder does."""
        path.mkdir()
        path.chmod(0o777)

    def work(self, work: Mapping[str, Any], contents: Mapping[str, str] | None = None) -> None:
        """Write the work list and the literal contents next to it."""
        for name, text in {"work.json": json.dumps(work, ensure_ascii=False), **(contents or {})}.items():
            (self._folder / "spec" / name).write_text(text)
            (self._folder / "spec" / name).chmod(0o644)

    def empty(self) -> None:
        """Empty the volumes for the next task."""
        old = self._folder / "old"
        for name in ("run", "task", "spec"):
            (old / name).mkdir(parents=True)
            for entry in (self._folder / name).iterdir():
                entry.rename(old / name / entry.name)
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():  # files of another uid
            old.rename(self._folder / f"old-{uuid.uuid4().hex}")
        self.directory(self.root)

    def close(self) -> None:
        """Remove the container that was kept."""
        if self._kept is not None:
            docker.docker("rm", "--force", self._kept)
            self._kept = None

    def run(self) -> Ended:
        """Start the filer and wait for its end."""
        if self._kept is None:
            self._kept = _new_name()
            docker.docker("run", "--rm", "--detach", *self.arguments(self._kept, _WAIT))
        return self._ended(self._kept, "exec", self._kept, _HELPER, *run_arguments(self.subject.command))

    def run_alone(self, *, network: str | None = None, options: Sequence[str] = ()) -> Ended:
        """Run the filer in its own container."""
        name = _new_name()
        command = run_arguments(self.subject.command)
        return self._ended(name, "run", "--rm", *self.arguments(name, command, network, options))

    def _ended(self, name: str, *command: str) -> Ended:
        try:
            done = subprocess.run(
                [docker.binary(), *command], capture_output=True, check=False, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            docker.docker("rm", "--force", name)
            raise
        log = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert done.returncode != _DOCKER_FAILED, log
        assert not log.startswith(_DOCKER_ERRORS), log
        ended = Ended(exit_code=done.returncode, events=tuple(self._events()), log=log)
        everything = log + json.dumps(ended.events, ensure_ascii=False)
        for secret in self.subject.secrets:
            assert secret not in everything, "the filer leaked a credential"
        return ended

    def interrupted(self, signal: str) -> None:
        """Start the filer, and signal it as soon as its process runs."""
        started, name = self._folder / "run/started", _new_name()
        docker.docker("run", "--detach", *self.arguments(name, run_arguments(self.subject.command)))
        try:
            wait_until(started.exists, "the filer's process", seconds=_SECONDS)
            _kill(name, signal)
            docker.docker("wait", name, timeout=_SECONDS)
        finally:
            docker.docker("rm", "--force", name)

    def arguments(
        self, name: str, command: Sequence[str], network: str | None = None, options: Sequence[str] = ()
    ) -> list[str]:
        """Return the arguments of `docker run`; `command`: the helper's arguments."""
        where = ["--name", name, "--network", network or self.subject.network]
        restricted = pod_options(self._volumes(), self._env())
        return [*where, *restricted, *options, self.subject.image, *command]

    def _volumes(self) -> dict[str, str]:
        mounts = {
            "/poiesis/bin": f"{self._helper}",
            "/poiesis/run": f"{self._folder / 'run'}",
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
    """Signal a container; ignore one that has already ended."""
    try:
        docker.docker("kill", "--signal", signal, name)
    except CommandFailed as error:
        if "is not running" not in error.output:
            raise


def _new_name() -> str:
    return f"poiesis-kit-{uuid.uuid4().hex[:12]}"


def install_helper(image: str, folder: Path) -> None:
    """Install the helper as the recorder does; `image`: of the helper."""
    no_paths = folder.with_name(f"{folder.name}-paths")
    for one in (folder, no_paths):
        one.mkdir()
        one.chmod(0o777)
    where = [
        *("--volume", f"{folder}:/poiesis/bin", "--volume", f"{no_paths}:/paths:ro"),
        *("--user", f"{os.getuid()}:{os.getgid()}"),
    ]
    install = ("install", "--bin", "/poiesis/bin", "--paths", "/paths")
    docker.docker("run", "--rm", *where, "--entrypoint", "/helper", image, *install)


def argv(text: str) -> tuple[str, ...]:
    """Split a command line as a shell does."""
    return tuple(shlex.split(text))
