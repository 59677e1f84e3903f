"""The api accepts the tasks that the documentation shows."""

import json
import re
from pathlib import Path

import pytest

from poiesis_api.validation import parse_task

DOCS = Path(__file__).parents[3] / "docs"


def tasks():
    """Yield every JSON block that is a task, and every task in an argument of curl."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        blocks = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        arguments = re.findall(r"'(\{.*\"executors\".*\})'", text)
        for number, block in enumerate(blocks + arguments):
            if '"executors"' in block:
                yield pytest.param(json.loads(block), id=f"{page.stem}-{number}")


@pytest.mark.parametrize("task", list(tasks()))
def test_documented_tasks_are_accepted(task):
    parse_task(json.dumps(task).encode())
