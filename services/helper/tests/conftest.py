"""The helper built for this machine, and a container's view of it: a run directory, no Kubernetes."""

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

SOURCE = Path(__file__).parents[1]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def _build(architecture: str) -> Path:
    """Build once per state of the sources, whichever worker comes first."""
    inputs = sorted(
        [*SOURCE.glob("src/*"), SOURCE / "cflags", SOURCE / "Makefile", SOURCE / "requirements.lock"]
    )
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    build = Path(tempfile.gettempdir()) / f"poiesis-helper-{digest}"
    target = build / f"helper-{architecture}"
    with FileLock(f"{build}-{architecture}.lock"):
        if not target.exists():
            make = ["make", "-C", str(SOURCE), str(target), f"BUILD={build}", f"PYTHON={sys.executable}"]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return target


@pytest.fixture(scope="session")
def build() -> Callable[[str], Path]:
    return _build


@pytest.fixture(scope="session")
def helper() -> Path:
    return _build(ARCHITECTURE)


@dataclass(frozen=True)
class Ended:
    code: int
    out: bytes
    err: bytes


class Container:
    """One container of a Pod; `options` are given to every `helper run`."""

    def __init__(self, helper: Path, root: Path, name: str):
        self.helper, self.root, self.runs = helper, root, root / "runs"
        self.dir = self.runs / name
        self.dir.mkdir(parents=True)
        self.message = root / f"{name}-termination-log"
        self.message.touch()
        self.cgroup = root / "cgroup"
        self.prefix: Sequence[str] = ()
        self.options: Sequence[str] = ()
        self.started: list[subprocess.Popen[bytes]] = []

    def command(self, *argv: str | bytes | Path, options: Sequence[str | Path] = ()) -> list[str | bytes]:
        words: list[str | bytes | Path] = [
            *self.prefix, self.helper, "run", "--run", self.dir, "--termination-log", self.message,
            "--cgroup-root", self.cgroup, *self.options, *options, "--", *argv,
        ]  # fmt: skip
        return [word if isinstance(word, bytes) else str(word) for word in words]

    def start(
        self, *argv: str | bytes | Path, options: Sequence[str | Path] = (), **popen
    ) -> subprocess.Popen[bytes]:
        popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | popen
        process = subprocess.Popen(self.command(*argv, options=options), **popen)
        self.started.append(process)
        return process

    def run(self, *argv: str | bytes | Path, options: Sequence[str | Path] = (), **popen) -> Ended:
        process = self.start(*argv, options=options, **popen)
        out, err = process.communicate(timeout=30)
        return Ended(process.returncode, out, err)

    def sh(self, script: str, options: Sequence[str | Path] = (), **popen) -> Ended:
        return self.run("sh", "-c", script, options=options, **popen)

    def read(self, name: str) -> bytes:
        return (self.dir / name).read_bytes()

    def has(self, name: str) -> bool:
        return (self.dir / name).exists()

    @property
    def locked(self) -> bool:
        """Whether the helper holds its run directory."""
        fd = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def exit(self) -> dict:
        return json.loads(self.read("exit.json"))

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.dir.iterdir()}


@pytest.fixture
def new_container(helper: Path, tmp_path: Path) -> Iterator[Callable[[str], Container]]:
    made: list[Container] = []

    def make(name: str) -> Container:
        made.append(Container(helper, tmp_path, name))
        return made[-1]

    yield make
    for process in (process for container in made for process in container.started):
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def container(new_container: Callable[[str], Container]) -> Container:
    return new_container("executor-0")


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def start_helper(
    helper: Path, eventually: Callable[[Callable[[], object]], None]
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the helper with these words and wait until it takes signals."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([helper, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        status = Path(f"/proc/{process.pid}/status")
        eventually(lambda: re.search(r"SigBlk:\s0*[1-9a-f]", status.read_text()))
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def open_to_everyone() -> Callable[[Path], None]:
    """Let other uids reach a directory of this test's, through all that pytest made above it for one uid."""

    def open_path(path: Path) -> None:
        for directory in (path, *path.parents):
            if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & 0o001:
                directory.chmod(directory.stat().st_mode | 0o005)

    return open_path
