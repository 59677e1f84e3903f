"""`pytest e2e/poiesis_e2e/filer_kit`: test the filers that Poiesis ships, or `--filer-image=…`.

The tests that a filer's abilities allow run in docker alone. docs/reference/filers.md has the options.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poiesis_e2e.filer_kit import shipped
from poiesis_e2e.filer_kit.container import Pod, Subject, argv, install_helper
from poiesis_e2e.filer_kit.stores import Program, Store
from poiesis_lab import daemon

_ABILITIES = {"inputs", "outputs", "directories", "network", "http", "types"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a custom filer."""
    group = parser.getgroup("filer kit")
    group.addoption("--filer-image", metavar="IMAGE", help="the filer under test")
    group.addoption("--filer-command", metavar="ARGV", default="/filer", help="as in the chart's `filers`")
    group.addoption("--filer-store", metavar="PROGRAM", help="puts data there: url, put, get")
    group.addoption(
        "--filer-can",
        metavar="WORD,…",
        default="inputs,outputs,network",
        help="inputs, outputs, directories (as inputs), network (false for local data), http (https? URLs), "
        "types (of inputs without one are reported)",
    )
    group.addoption("--filer-network", metavar="NAME", help="docker network on which the store answers")
    group.addoption("--filer-env", metavar="NAME=VALUE", action="append", default=[])
    group.addoption("--filer-secret", metavar="DIRECTORY", help="its files are in /poiesis/secret")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers: undeclared markers are errors."""
    config.addinivalue_line("markers", "needs(*abilities): of a filer to be tested for this")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with each filer that it applies to."""
    if "filer" not in metafunc.fixturenames:
        return
    needed = {word for mark in metafunc.definition.iter_markers("needs") for word in mark.args}
    image = metafunc.config.getoption("filer_image")
    able = (
        {image: set(metafunc.config.getoption("filer_can").split(","))}
        if image
        else {name: filer.abilities for name, filer in shipped.FILERS.items()}
    )
    for words in able.values():
        if unknown := set(words) - _ABILITIES:
            raise pytest.UsageError(f"--filer-can: no such word: {', '.join(sorted(unknown))}")
    metafunc.parametrize("filer", [name for name, words in able.items() if needed <= words], indirect=True)


@pytest.fixture(scope="session")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the helper, as the recorder installs it."""
    daemon.ensure()
    folder = tmp_path_factory.mktemp("bin") / "bin"
    install_helper(shipped.built("helper"), folder)
    return folder


@dataclass(frozen=True)
class Ready:
    """A filer and its store."""

    pod: Pod
    store: Store


@pytest.fixture(scope="session")
def ready() -> Iterator[dict[str, Ready]]:
    """Keep filers between tests, by name; remove their containers at the end."""
    filers: dict[str, Ready] = {}
    yield filers
    for filer in filers.values():
        filer.pod.close()


@pytest.fixture
def filer(
    request: pytest.FixtureRequest,
    ready: dict[str, Ready],
    helper: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ready:
    """Return the filer under test with its store."""
    name: str = request.param
    if name not in ready:
        make = (
            _given(request.config) if request.config.getoption("filer_image") else shipped.FILERS[name].make
        )
        subject, store = make(tmp_path_factory.mktemp("shared"))
        ready[name] = Ready(Pod(subject, helper, tmp_path_factory.mktemp("pod")), store)
    return ready[name]


def _given(config: pytest.Config) -> Callable[[Path], shipped.Made]:
    program, secret = config.getoption("filer_store"), config.getoption("filer_secret")
    if not program:
        raise pytest.UsageError("--filer-image needs --filer-store")
    files = {path.name: path.read_text() for path in Path(secret).iterdir()} if secret else {}
    subject = Subject(
        image=config.getoption("filer_image"),
        command=argv(config.getoption("filer_command")),
        network=config.getoption("filer_network") or shipped.network(),
        env=dict(given.split("=", 1) for given in config.getoption("filer_env")),
        secret=files,
    )
    return lambda _: (subject, Program(program))


@pytest.fixture
def store(filer: Ready) -> Store:
    """Return the filer's store."""
    return filer.store


@pytest.fixture
def name() -> str:
    """Return the name of a directory of the store for this test alone."""
    return f"kit-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def pod(filer: Ready) -> Pod:
    """Return the volumes of a TaskPod with one mounted directory, /data."""
    filer.pod.empty()
    filer.pod.directory(filer.pod.root / "data")
    return filer.pod


@pytest.fixture
def staging(pod: Pod) -> Callable[..., None]:
    """Return a function that writes a work list of inputs: (path, url or None for content, fields)…"""

    def write(*items: dict[str, Any], **contents: str) -> None:
        pod.work(
            {
                "version": 1,
                "task": "kit",
                "inputs": [{"local": f"/task/root{item['path']}", **item} for item in items],
                "outputs": [],
            },
            {name.replace("_", "-"): text for name, text in contents.items()},
        )

    return write


@pytest.fixture
def sending(pod: Pod) -> Callable[..., None]:
    """Return a function that writes a work list of outputs."""

    def write(*items: dict[str, Any]) -> None:
        outputs = [{"local": f"/task/root{item['path']}", "wildcard": False, **item} for item in items]
        pod.work({"version": 1, "task": "kit", "inputs": [], "outputs": outputs})

    return write
