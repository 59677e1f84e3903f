"""Programs that an attacker runs in an executor: one file each, with the standard library only."""

from pathlib import Path

from poiesis_e2e.tes_client import Executor

_HERE = Path(__file__).parent


def attack(image: str, program: str, *arguments: str) -> Executor:
    """Return an executor that runs a program of this folder; `image` has Python."""
    source = (_HERE / f"{program}.py").read_text(encoding="utf-8")
    return {"image": image, "command": ["python3", "-c", source, *arguments]}
