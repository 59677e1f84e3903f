"""Decisions of docs/reference/api.md that no other test covers.

Each of them, and each clause of docs/development/conformance.md, names tests that exist.
"""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BASE = "/ga4gh/tes/v1"
EXECUTORS = [{"image": "busybox", "command": ["true"]}]
DECISIONS = ("docs/reference/api.md", "| question | behavior | reason |")
HEADERS = {  # of the tables whose last column names tests, by document
    "docs/development/api-decisions.md": "| question | tests |",
    "docs/development/conformance.md": "| clause | where | tests |",
}


def rows(document: str, header: str) -> list[list[str]]:
    """Return the cells of every row below a table header of this text."""
    sections = (ROOT / document).read_text().split(header)[1:]
    lines = [line for section in sections for line in section.split("\n\n")[0].splitlines()[2:]]
    cells = [line.strip("|").split(" | ") for line in lines]
    assert {len(row) for row in cells} == {header.count("|") - 1}
    return cells


def promises() -> list[tuple[str, list[str]]]:
    """Return (promise, tests) of every row of those tables."""
    return [
        (row[0].strip(), re.findall(r"`([^`]*)`", row[-1]))
        for document, header in HEADERS.items()
        for row in rows(document, header)
    ]


def test_every_decision_has_a_row_of_tests():
    tested = rows("docs/development/api-decisions.md", HEADERS["docs/development/api-decisions.md"])
    assert [row[0] for row in rows(*DECISIONS)] == [row[0] for row in tested]


@pytest.mark.parametrize(("promise", "tests"), promises(), ids=[promise for promise, _ in promises()])
def test_every_promise_names_its_tests(promise, tests):
    assert tests
    for test in tests:
        path, name = test.split("::")
        assert re.search(rf"^((async )?def {name}\(|{name} = )", (ROOT / path).read_text(), re.MULTILINE), (
            test
        )


async def create(client, **fields):
    response = await client.post(f"{BASE}/tasks", json={"executors": EXECUTORS, **fields})
    assert response.status == 200
    return (await response.json())["id"]


async def found(client, keys, values):
    """How many tasks a list with these tags holds."""
    query = [*(("tag_key", key) for key in keys), *(("tag_value", value) for value in values)]
    response = await client.get(f"{BASE}/tasks", params=query)
    assert response.status == 200
    return len((await response.json())["tasks"])


TRUTH_TABLE = [  # of TES 1.1, `tag_key`
    ({"foo": "bar"}, {"foo": "bar"}, True),
    ({"foo": "bar"}, {"foo": "bat"}, False),
    ({"foo": ""}, {"foo": ""}, True),
    ({"foo": "bar", "baz": "bat"}, {"foo": "bar", "baz": "bat"}, True),
    ({"foo": "bar"}, {"foo": "bar", "baz": "bat"}, True),
    ({"foo": "bar", "baz": "bat"}, {"foo": "bar"}, False),
    ({"foo": ""}, {"foo": "bar"}, True),
    ({"foo": ""}, {}, False),
]


@pytest.mark.integration
@pytest.mark.parametrize(("wanted", "tags", "matches"), TRUTH_TABLE)
async def test_the_truth_table_of_tags(client, wanted, tags, matches):
    await create(client, tags=tags)
    assert await found(client, wanted.keys(), wanted.values()) == int(matches)


@pytest.mark.integration
async def test_repeated_tag_key_must_match_each_value(client):
    await create(client, tags={"foo": "bar"})
    assert await found(client, ["foo", "foo"], ["bar", "bar"]) == 1
    assert await found(client, ["foo", "foo"], ["bar"]) == 1
    assert await found(client, ["foo", "foo"], ["bar", "bat"]) == 0


@pytest.mark.integration
async def test_empty_lists_and_tags_mean_absent(client):
    task_id = await create(
        client,
        inputs=[],
        outputs=[],
        volumes=[],
        tags={},
        resources={"zones": []},
        executors=[{**EXECUTORS[0], "env": {}}],
    )
    response = await client.get(f"{BASE}/tasks/{task_id}", params={"view": "FULL"})
    task = await response.json()
    del task["id"], task["state"], task["creation_time"]
    assert task == {"executors": [{**EXECUTORS[0], "env": {}}], "resources": {"zones": []}}


@pytest.mark.integration
async def test_null_in_map_is_not_stored(client):
    sent = {
        "executors": [{"image": "busybox", "command": ["true"], "env": {"KEPT": "1", "GONE": None}}],
        "tags": {"workflow_id": "0d8e9a52", "parent_workflow_id": None},
        "resources": {"cpu_cores": 1, "backend_parameters": {"vm_size": None}},
    }
    response = await client.post(f"{BASE}/tasks", json=sent)
    assert response.status == 200, await response.text()
    task_id = (await response.json())["id"]
    text = await (await client.get(f"{BASE}/tasks/{task_id}?view=FULL")).text()
    task = json.loads(text)
    assert "null" not in text
    assert task["tags"] == {"workflow_id": "0d8e9a52"}
    assert task["executors"][0]["env"] == {"KEPT": "1"}
    assert task["resources"] == {"cpu_cores": 1}


@pytest.mark.integration
async def test_a_long_tag_value_is_found(client):
    value = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(80))
    response = await client.post(
        f"{BASE}/tasks", json={"executors": [{"image": "b", "command": ["c"]}], "tags": {"k": value}}
    )
    task_id = (await response.json())["id"]
    found = await client.get(f"{BASE}/tasks", params={"tag_key": "k", "tag_value": value})
    assert [task["id"] for task in (await found.json())["tasks"]] == [task_id]
