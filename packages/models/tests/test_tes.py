from typing import Any

import pytest
from pydantic import ValidationError

from poiesis_models.tes import CONTENT_BYTES, TesInput, TesOutput, TesTaskRequest

EXECUTOR = {"image": "busybox", "command": ["true"]}


def task(**fields: Any) -> dict[str, Any]:
    return {"executors": [EXECUTOR]} | fields


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({}, ("executors",)),
        ({"executors": []}, ("executors",)),
        ({"executors": [{"command": ["x"]}]}, ("executors", 0, "image")),
        ({"executors": [{"image": "", "command": ["x"]}]}, ("executors", 0, "image")),
        ({"executors": [{"image": "i"}]}, ("executors", 0, "command")),
        ({"executors": [{"image": "i", "command": []}]}, ("executors", 0, "command")),
        ({"executors": [{"image": "i", "command": [""]}]}, ("executors", 0, "command")),
        ({"executors": [{"image": "i", "command": ["a\0"]}]}, ("executors", 0, "command", 0)),
        ({"executors": [{"image": "i", "command": "true"}]}, ("executors", 0, "command")),
        ({"executors": [EXECUTOR | {"stdin": "in"}]}, ("executors", 0, "stdin")),
        ({"executors": [EXECUTOR | {"stdout": "out"}]}, ("executors", 0, "stdout")),
        ({"executors": [EXECUTOR | {"stderr": "err"}]}, ("executors", 0, "stderr")),
        ({"executors": [EXECUTOR | {"workdir": "w"}]}, ("executors", 0, "workdir")),
        ({"executors": [EXECUTOR | {"workdir": "/a/../b"}]}, ("executors", 0, "workdir")),
        ({"executors": [EXECUTOR | {"env": {"A": 1}}]}, ("executors", 0, "env", "A")),
        ({"executors": [EXECUTOR | {"env": {"A=B": "1"}}]}, ("executors", 0, "env")),
        (task(inputs=[{"url": "s3://b/k"}]), ("inputs", 0, "path")),
        (task(inputs=[{"url": "s3://b/k", "path": "x"}]), ("inputs", 0, "path")),
        (task(inputs=[{"url": "s3://b/k", "path": "/a//b"}]), ("inputs", 0, "path")),
        (task(inputs=[{"path": "/x"}]), ("inputs", 0)),
        (task(inputs=[{"url": "s3://b/k", "path": "/x", "type": "LINK"}]), ("inputs", 0, "type")),
        (task(inputs=[{"content": "x" * (CONTENT_BYTES + 1), "path": "/x"}]), ("inputs", 0, "content")),
        (task(inputs=[{"content": "x", "path": "/x", "type": "DIRECTORY"}]), ("inputs", 0)),
        (task(inputs=[{"content": "x", "path": "/x/"}]), ("inputs", 0)),
        (task(inputs=[{"url": "s3://b/k", "path": "/x/", "type": "FILE"}]), ("inputs", 0)),
        (task(inputs=[{"url": "s3://b/k", "path": "/"}]), ("inputs", 0)),
        (task(outputs=[{"path": "/x"}]), ("outputs", 0, "url")),
        (task(outputs=[{"url": "s3://b/k"}]), ("outputs", 0, "path")),
        (task(outputs=[{"url": "s3://b/k", "path": "x"}]), ("outputs", 0, "path")),
        (task(outputs=[{"url": "s3://b/k", "path": r"/a/\.\./b"}]), ("outputs", 0)),
        (task(outputs=[{"url": "s3://b/k", "path": "/a/*", "path_prefix": "/b"}]), ("outputs", 0)),
        (task(outputs=[{"url": "s3://b/k", "path": "/a/*", "path_prefix": "a"}]), ("outputs", 0)),
        (task(outputs=[{"url": "s3://b/k", "path": "/a/*", "path_prefix": "/a//"}]), ("outputs", 0)),
        (task(volumes=["x"]), ("volumes", 0)),
        (task(resources={"cpu_cores": 0}), ("resources", "cpu_cores")),
        (task(resources={"ram_gb": 0}), ("resources", "ram_gb")),
        (task(resources={"ram_gb": -1}), ("resources", "ram_gb")),
        (task(resources={"disk_gb": -0.1}), ("resources", "disk_gb")),
        (task(resources={"disk_gb": float("nan")}), ("resources", "disk_gb")),
        (task(resources={"disk_gb": 10**400}), ("resources", "disk_gb")),
        (task(resources={"ram_gb": -(10**400)}), ("resources", "ram_gb")),
        (task(tags={"": "x"}), ("tags", "", "[key]")),
    ],
)
def test_invalid_task_is_rejected_with_its_field(document: dict[str, Any], where: tuple[Any, ...]):
    with pytest.raises(ValidationError) as refusal:
        TesTaskRequest.model_validate(document)
    assert [error["loc"] for error in refusal.value.errors()] == [where]


def test_absent_and_unknown_fields_are_not_returned():
    document = task(id="mine", state="COMPLETE", x=1, resources={"ram_gb": 2})
    assert TesTaskRequest.model_validate(document).model_dump(exclude_none=True) == task(
        resources={"ram_gb": 2.0}
    )


@pytest.mark.parametrize("none", [0, 0.0, -0.0])
def test_disk_gb_0_means_unset(none: float):
    document = task(resources={"ram_gb": 2, "disk_gb": none})
    assert TesTaskRequest.model_validate(document).model_dump(exclude_none=True) == task(
        resources={"ram_gb": 2.0}
    )


def test_content_of_128_kib_is_accepted():
    content = "ä" * (CONTENT_BYTES // 2)
    assert TesInput(path="/x", content=content).literal == content


@pytest.mark.parametrize(
    ("content", "url", "literal"),
    [
        ("a", None, "a"),
        ("a", "s3://b/k", "a"),
        ("", "s3://b/k", None),
        ("", None, ""),
        (None, "s3://b/k", None),
    ],
)
def test_content_wins_over_url_unless_it_is_empty(content: str | None, url: str | None, literal: str | None):
    assert TesInput(path="/x", content=content, url=url).literal == literal


@pytest.mark.parametrize(
    ("path", "directory"),
    [("/a/b.txt", "/a"), ("/a/b/", "/a"), ("/a/*/c", "/a"), ("/out", "/"), ("/*.txt", "/")],
)
def test_output_has_the_directory_that_contains_it(path: str, directory: str):
    assert TesOutput(url="s3://b/k", path=path).directory == directory


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": "x"}, "FILE"),
        ({"content": "x", "url": "s3://b/d/"}, "FILE"),
        ({"url": "s3://b/k", "type": "FILE"}, "FILE"),
        ({"url": "s3://b/k", "type": "DIRECTORY"}, "DIRECTORY"),
        ({"url": "s3://b/k", "path": "/x/"}, "DIRECTORY"),
        ({"url": "s3://b/d/"}, "DIRECTORY"),
        ({"url": "s3://b"}, "DIRECTORY"),
        ({"url": "s3://b/d/", "type": "FILE"}, "DIRECTORY"),
        ({"url": "s3://b/k"}, None),
        ({"url": "https://h/d/"}, None),
        ({"url": "/nfs/d/"}, None),
    ],
)
def test_certain_type_of_inputs(fields: dict[str, Any], expected: str | None):
    assert TesInput.model_validate({"path": "/x"} | fields).certain_type == expected


@pytest.mark.parametrize(
    ("path", "wildcard", "place", "directory"),
    [
        (r"/out/sample\[1\].txt", False, "/out/sample[1].txt", "/out"),
        (r"/run\[1\]/x", False, "/run[1]/x", "/run[1]"),
        (r"/run\[1\]/*", True, r"/run\[1\]/*", "/run[1]"),
        ("/out/sample[1].txt", True, "/out/sample[1].txt", "/out"),
        ("/out/a[b", False, "/out/a[b", "/out"),
    ],
)
def test_output_is_a_path_or_a_pattern(path: str, wildcard: bool, place: str, directory: str):
    output = TesOutput(url="s3://b/k", path=path)
    assert (output.wildcard, output.place, output.directory) == (wildcard, place, directory)


@pytest.mark.parametrize(
    ("path", "sent", "prefix"),
    [
        ("/a/*", "/a", "/a"),
        ("/a/*", None, None),
        ("/a/b", "/x", None),
        (r"/r\[1\]/*", "/r[1]", "/r[1]"),
        (r"/r\[1\]/*", r"/r\[1\]", "/r[1]"),
    ],
)
def test_a_prefix_is_that_of_the_matches(path: str, sent: str | None, prefix: str | None):
    assert TesOutput(url="s3://b/k", path=path, path_prefix=sent).prefix == prefix


def test_null_in_map_means_absent():
    task = TesTaskRequest.model_validate_json(
        """{"executors": [{"image": "i", "command": ["c"], "env": {"KEPT": "1", "GONE": null}}],
            "tags": {"a": "b", "parent": null}, "resources": {"backend_parameters": {"vm_size": null}}}"""
    )
    assert task.executors[0].env == {"KEPT": "1"}
    assert task.tags == {"a": "b"}
    assert task.resources.backend_parameters == {}
