"""Build the command: a wheel for pip, and one file that Python runs as it is (zipapp)."""

import sys
import tempfile
from pathlib import Path

from poiesis_lab.shell import run
from poiesis_tools.release import wheels
from poiesis_tools.release.archives import zipped
from poiesis_tools.release.facts import Facts
from poiesis_tools.workspace import ROOT

_CLI = ROOT / "cli"
_OLDEST_PYTHON = "3.11"  # requires-python of the command; newer versions need no other dependency
_MAIN = b"import sys\n\nfrom poiesis_cli.app import main\n\nsys.exit(main())\n"
_SHEBANG = b"#!/usr/bin/env python3\n"
# Of one platform, or of the folder of the build; the packages have the same modules in Python.
_NOT_PORTABLE = (".so", ".pyd", ".pyc", ".c", ".pyx", ".pxd", ".pxi", ".pyi", "/RECORD", "/direct_url.json")


def wheel(folder: Path, facts: Facts) -> Path:
    """Write poiesis_cli-<version>-py3-none-any.whl; return its path."""
    environment = {"SOURCE_DATE_EPOCH": str(facts.epoch)}
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=_CLI, env=environment)
    return folder / f"poiesis_cli-{facts.version}-py3-none-any.whl"


def zipapp(made: Path, facts: Facts) -> bytes:
    """Return the wheel `made` and the dependencies of the lock as an executable archive.

    It has no compiled module, so it runs on every platform, with the slower Python code of the dependencies.
    """
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        wheels.unpack_lock(target, _OLDEST_PYTHON, _CLI / "requirements.lock")
        wheels.unpack(target, _OLDEST_PYTHON, made)
        files = {
            str(path.relative_to(target)): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file() and not str(path).endswith(_NOT_PORTABLE) and path.parts[-2] != "bin"
        }
    return _SHEBANG + zipped({**files, "__main__.py": _MAIN}, facts.epoch)
