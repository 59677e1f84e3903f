"""A server, and a way to call the command as a shell would, but in this process."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from poiesis_cli.app import main
from poiesis_cli.timing import Timing

sys.path.insert(0, str(Path(__file__).parent))

from tes_for_tests import FAST, FakeServer, serving  # after its directory is on the path


@dataclass(frozen=True)
class Result:
    """The result of a call."""

    code: int
    out: str
    err: str


@dataclass
class Poiesis:
    """`poiesis(*arguments)` runs the command; `env` is its complete environment."""

    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: bytes = b"", timing: Timing = FAST) -> Result:
        self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(arguments, environ=self.env, timing=timing)
        return Result(code, *self.capture.readouterr())


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[FakeServer]:
    """Another server."""
    with serving() as server:
        yield server


@pytest.fixture
def poiesis(
    server: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Result]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return Poiesis(capsys, monkeypatch, {"HOME": str(tmp_path), "POIESIS_SERVER": server.url})
