"""Every promise of docs/security/promises.md names tests that exist, and every attack is on that page."""

import ast
import re
from pathlib import Path

import pytest

from poiesis_e2e.failures.cases import CASES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/security/promises.md").read_text(encoding="utf-8")
STORIES = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)))
ROWS = sorted(set(re.findall(r"row `([\w-]+)`", PAGE)))


def stories_in(story: str) -> set[str]:
    """Return the names of the tests in a file of stories."""
    tree = ast.parse((ROOT / "e2e/stories" / story).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@pytest.mark.parametrize(("story", "test"), STORIES)
def test_promised_story_exists(story: str, test: str) -> None:
    assert test in stories_in(story)


@pytest.mark.parametrize("row", ROWS)
def test_promised_row_exists(row: str) -> None:
    assert row in {case.id for case in CASES}


def test_every_promise_has_a_proof() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 20
    assert [line for line in rows if "::test_" not in line and "row `" not in line] == []


@pytest.mark.parametrize(
    "story", ["test_attacks.py", "test_hardening.py", "test_network.py", "test_networks.py"]
)
def test_every_attack_is_a_promise(story: str) -> None:
    assert stories_in(story) - {test for name, test in STORIES if name == story} == set()
