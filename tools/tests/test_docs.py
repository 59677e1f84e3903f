"""Links, anchors and long lines of the documentation are checked."""

from pathlib import Path

import pytest

from poiesis_tools import docs


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_link_to_a_missing_file_is_reported(page):
    page.write_text("See [it](other.md).\n")
    assert docs.broken_links(page) == [f"{page}:1: no such file: other.md"]


def test_link_to_a_missing_heading_is_reported(page):
    page.write_text("# A page\n\n[up](#a-page), [down](#the-end)\n")
    assert docs.broken_links(page) == [f"{page}:3: no such heading: #the-end"]


def test_links_in_code_and_external_links_are_ignored(page):
    page.write_text("`[it](gone.md)` [there](https://example.org/x)\n```\n[it](gone.md)\n```\n")
    assert docs.broken_links(page) == []


def test_anchors_are_those_of_github():
    text = "# S3 and HTTP\n## `run` and [wait](x.md)\n## Two\n## Two\n```\n# no heading\n```\n"
    assert docs.anchors(text) == {"s3-and-http", "run-and-wait", "two", "two-1"}


def test_long_paragraphs_are_reported_but_not_table_rows(page):
    page.write_text(f"{'word ' * 100}\n\n| {'cell ' * 100} |\n")
    assert docs.long_lines(page) == [f"{page}:1: 500 characters in one paragraph, at most 400"]


def test_link_out_of_docs_points_to_repository():
    page = docs.DOCS / "adr/README.md"
    text = "[guide](../../CONTRIBUTING.md#style) [next](0001-one-pod-a-task.md) [tools](../../tools)"
    assert docs.with_repository_links(text, page) == (
        f"[guide]({docs.REPOSITORY}/blob/main/CONTRIBUTING.md#style) [next](0001-one-pod-a-task.md) "
        f"[tools]({docs.REPOSITORY}/tree/main/tools)"
    )


def test_link_to_a_missing_file_fails():
    with pytest.raises(ValueError, match=r"no such file: \.\./\.\./GONE\.md"):
        docs.with_repository_links("[x](../../GONE.md)", docs.DOCS / "adr/README.md")


def test_examples_of_a_command_are_literal():
    lines = ["Run a command.", "", "| poiesis run x -- y", "| poiesis run z", "", "In 10**9 bytes."]
    assert docs.with_literal_examples(lines) == [
        *(
            "Run a command.",
            "",
            "",
            ".. code-block:: text",
            "",
            "   poiesis run x -- y",
            "   poiesis run z",
            "",
        ),
        r"In 10\*\*9 bytes.",
    ]


def test_schemas_become_tables_of_their_fields():
    schemas = {
        "tesTask": {
            "description": "A task.",
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "readOnly": True, "description": "The <id>"},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "state": {"$ref": "#/components/schemas/tesState"},
                "logs": {"type": "array", "items": {"type": "integer"}, "description": "a | b"},
            },
        },
        "tesState": {"enum": ["QUEUED", "RUNNING"]},
    }
    text = docs.schema_tables(schemas)
    assert [line for line in text.splitlines() if line] == [
        "## tesTask",
        "A task.",
        "| field | type | description |",
        "|---|---|---|",
        "| `id` | string | **Required.** Read-only. The &lt;id> |",
        "| `tags` | map to string |  |",
        "| `state` | [tesState](#tesstate) |  |",
        r"| `logs` | list of integer | a \| b |",
        "## tesState",
        "Values: `QUEUED`, `RUNNING`",
    ]


def test_pages_load_nothing_from_other_hosts():
    """Check the configuration; `make docs` checks the built pages."""
    assert docs.external_resources('<script src="/a.js"></script><a href="https://example.org">x</a>') == []
    assert docs.external_resources('<link rel="stylesheet" href="https://cdn.example.org/a.css">') == [
        "https://cdn.example.org/a.css"
    ]
