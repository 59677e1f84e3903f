import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask, MalformedBody
from poiesis_api.validation import parse_task, validate
from poiesis_models.tes import TesTaskRequest


def task(**fields):
    executor = {"image": "i", "command": ["c"], **fields.pop("executor", {})}
    return TesTaskRequest.model_validate({"executors": [executor], **fields})


def source(path, **fields):
    return {"url": "s3://b/k", "path": path, **fields}


REFUSED = [
    (
        "two inputs for one path",
        task(inputs=[source("/a/b"), source("/a/b")]),
        "inputs[1].path",
        "inputs[0].path",
    ),
    (
        "the same with a slash",
        task(inputs=[source("/a/b", type="DIRECTORY"), source("/a/b/", type="DIRECTORY")]),
        "inputs[1].path",
        "'/a/b'",
    ),
    (
        "an input in an input",
        task(inputs=[source("/a", type="FILE"), source("/a/b")]),
        "inputs[1].path",
        "makes it a file",
    ),
    (
        "a volume that is a file",
        task(inputs=[{"path": "/a/b", "content": "x"}], volumes=["/a/b"]),
        "volumes[0]",
        "inputs[0].path makes it a file",
    ),
    (
        "an output in a file",
        task(inputs=[source("/a/b", url="https://h/k")], outputs=[source("/a/b/c")]),
        "outputs[0].path",
        "'/a/b'",
    ),
    (
        "a pattern in a file",
        task(inputs=[source("/a/b", type="FILE")], outputs=[source("/a/b/*", path_prefix="/a")]),
        "outputs[0].path",
        "'/a/b'",
    ),
    (
        "a stream in a file",
        task(inputs=[source("/a", type="FILE")], executor={"stdout": "/a/o"}),
        "executors[0].stdout",
        "'/a'",
    ),
    ("our own directory", task(volumes=["/poiesis"]), "volumes[0]", "/poiesis"),
    ("inside ours", task(inputs=[source("/poiesis/run/x")]), "inputs[0].path", "/poiesis/run/x"),
    ("the task volume", task(outputs=[source("/task/x")]), "outputs[0].path", "/task"),
    ("a workdir of ours", task(executor={"workdir": "/poiesis/bin"}), "executors[0].workdir", "/poiesis/bin"),
    ("a system volume", task(volumes=["/usr/"]), "volumes[0]", "'/usr' is a system directory"),
    ("a system input", task(inputs=[source("/etc", type="DIRECTORY")]), "inputs[0].path", "'/etc'"),
    ("a system output", task(outputs=[source("/root/")]), "outputs[0].path", "'/root'"),
    (
        "a pattern in a system directory",
        task(outputs=[source("/*.txt", path_prefix="/")]),
        "outputs[0].path",
        "system directory '/'",
    ),
    (
        "a pattern below a system directory",
        task(outputs=[source("/usr/share/x/*", path_prefix="/usr")]),
        "outputs[0].path",
        "'/usr/share/x'",
    ),
    (
        "an input scheme",
        task(inputs=[source("/a/b", url="gs://b/k")]),
        "inputs[0].url",
        "unsupported URL scheme 'gs' in 'gs://b/k' (supported: http, https, s3)",
    ),
    ("no scheme", task(inputs=[source("/a/b", url="/mnt/x")]), "inputs[0].url", "'/mnt/x'"),
    ("a broken URL", task(inputs=[source("/a/b", url="http://[")]), "inputs[0].url", "'http://['"),
    (
        "an output scheme",
        task(outputs=[source("/a/b", url="https://b/k")]),
        "outputs[0].url",
        "unsupported URL scheme 'https' in 'https://b/k' (supported: s3)",
    ),
    ("an image with a space", task(executor={"image": "a b"}), "executors[0].image", "'a b'"),
    ("a variable's name", task(executor={"env": {"\u00e4": ""}}), "executors[0].env", "'\u00e4'"),
    ("a long path", task(volumes=["/a" * 600]), "volumes[0]", "1200 bytes"),
    ("a long name", task(volumes=["/" + "a" * 256]), "volumes[0]", "256 bytes"),
    ("a long tag", task(tags={"k": "\u00e4" * 8193}), "tags.k", "16386 bytes"),
    ("a long URL", task(outputs=[source("/a/b", url="s3://" + "b" * 1600)]), "outputs[0].url", "1605 bytes"),
]


@pytest.mark.parametrize(
    ("request_", "field", "words"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_what_cannot_work_is_refused_by_field_and_value(config, request_, field, words):
    with pytest.raises(InvalidTask) as raised:
        validate(request_, config)
    assert raised.value.field == field
    assert words in str(raised.value)
    assert str(raised.value).startswith(field.split(".")[0].split("[")[0])


def sharing(config):
    """The configuration with a filer of shared volumes."""
    side = {"schemes": ["file"], "image": "file", "command": ["file"]}
    volumes = [
        {"prefix": "/nfs/in", "volume": {"nfs": {}}},
        {"prefix": "/nfs/out", "volume": {"nfs": {}}, "writable": True},
    ]
    document = config.model_dump(by_alias=True)
    document["filers"].append({"name": "file", "inputs": side, "outputs": side, "sharedVolumes": volumes})
    return Document.model_validate(document)


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (
            task(inputs=[source("/a/b", url="/etc/passwd")]),
            "inputs[0].url",
            "can be read (/nfs/in, /nfs/out)",
        ),
        (task(inputs=[source("/a/b", url="file:///nfs/inner/x")]), "inputs[0].url", "can be read"),
        (task(inputs=[source("/a/b", url="file:///nfs/in/../out")]), "inputs[0].url", "'..'"),
        (task(inputs=[source("/a/b", url="file:///nfs/in/%2e%2e/out")]), "inputs[0].url", "'..'"),
        (task(inputs=[source("/a/b", url="file://nas/nfs/in/x")]), "inputs[0].url", "without a host"),
        (task(outputs=[source("/a/b", url="/nfs/in/x")]), "outputs[0].url", "can be written (/nfs/out)"),
    ],
)
def test_a_file_has_to_be_in_a_shared_volume_and_an_output_in_a_writable_one(config, request_, field, words):
    with pytest.raises(InvalidTask) as raised:
        validate(request_, sharing(config))
    assert raised.value.field == field
    assert words in str(raised.value)


def test_files_in_shared_volumes_are_accepted_as_urls_and_as_bare_paths(config):
    request_ = task(
        inputs=[source("/a/b", url="/nfs/in/x y#1"), source("/a/c", url="file:///nfs/in/x%20y%231")],
        outputs=[source("/a/d", url="/nfs/out/x")],
    )
    assert validate(request_, sharing(config)) == (request_, [])


ACCEPTED = [
    task(),
    task(inputs=[source("/a", type="DIRECTORY"), source("/a/b")]),
    task(inputs=[source("/a"), source("/a/b")]),
    task(inputs=[source("/a/b", url="HTTPS://x/y")]),
    task(inputs=[{"path": "/a/b", "content": ""}]),
    task(inputs=[{"path": "/a/b", "content": "x", "url": "gs://ignored"}]),
    task(inputs=[source("/a/b")], outputs=[source("/a/b")]),
    task(outputs=[source("/a/b", path_prefix="ignored//")]),
    task(outputs=[source("/w/o"), source("/w/", type="DIRECTORY")], executor={"stdout": "/w/o"}),
    task(outputs=[source("/usr/share/x/*", path_prefix="/usr")], volumes=["/usr/share/x"]),
    task(outputs=[source("/out.txt")], executor={"stdout": "/out.txt", "workdir": "/"}),
    task(volumes=["/opt/data", "/var/lib/x", "/tasks", "/poiesis2"]),
    task(executor={"env": {"a.b-c 1": "x"}}),
]


@pytest.mark.parametrize("request_", ACCEPTED)
def test_what_works_is_accepted_without_warnings(config, request_):
    assert validate(request_, config) == (request_, [])


def test_a_pattern_without_prefix_is_taken_from_the_directory_before_it(config):
    request_ = task(outputs=[source("/a/b/*/c?.txt"), source("/a/*", path_prefix="/a")])
    accepted, warnings = validate(request_, config)
    assert accepted == request_
    assert warnings == [
        "outputs[0].path_prefix is missing, though path '/a/b/*/c?.txt' has wildcards: '/a/b' is used"
    ]


def test_two_stars_are_one_and_that_is_said(config):
    request_ = task(
        outputs=[source("/a/**.txt", path_prefix="/a"), source("/b/*", path_prefix="/b"), source("/c/x")]
    )
    assert validate(request_, config) == (
        request_,
        [
            (
                "outputs[0].path '/a/**.txt': '**' is treated as '*' and does not match '/';"
                " to send a directory tree, name it"
            )
        ],
    )


def test_unknown_backend_parameters_are_warned_about_unless_strict(config):
    resources = {"cpu_cores": 1, "backend_parameters": {"A": "1", "b": "2"}}
    assert validate(task(resources=resources), config) == (
        task(resources={"cpu_cores": 1}),
        [
            "'A' is not supported; supported: none; it has been ignored",
            "'b' is not supported; supported: none; it has been ignored",
        ],
    )
    with pytest.raises(InvalidTask, match="'A' is not supported; supported: none; 'b' is not"):
        validate(task(resources=resources | {"backend_parameters_strict": True}), config)


SHAPES = [
    ({}, "executors", "executors: Field required"),
    ({"executors": []}, "executors", "executors: List should have at least 1 item"),
    (
        {"executors": [{"image": "i", "command": ["c"], "stdin": "x"}]},
        "executors[0].stdin",
        "executors[0].stdin: stdin must be an absolute path in the container, not 'x'",
    ),
    (
        {"executors": [{"image": "i", "command": ["c"]}], "resources": {"cpu_cores": 0}},
        "resources.cpu_cores",
        "resources.cpu_cores: Input should be greater than 0, got 0",
    ),
    (
        {"executors": [{"image": "i", "command": ["c"]}], "tags": {"": "x"}},
        "tags",
        "tags: String should have at least 1 character, got ''",
    ),
    ([], None, "the body: Input should be an object"),
]


@pytest.mark.parametrize(("body", "field", "words"), SHAPES)
def test_a_wrong_shape_is_named(body, field, words):
    with pytest.raises(InvalidTask) as raised:
        parse_task(json.dumps(body).encode())
    assert raised.value.field == field
    assert str(raised.value).startswith(words)


def test_a_long_list_of_problems_is_cut():
    body = {"executors": [{"image": 1, "command": []}], "tags": dict.fromkeys("abcdefgh", 1)}
    with pytest.raises(InvalidTask) as raised:
        parse_task(json.dumps(body).encode())
    assert str(raised.value).endswith("; and 5 more")


SMALL = {"image": "i", "command": ["c"]}
ENDLESS = [
    ({"executors": [1] * 1_000_000}, "executors[0]: Input should be an object, got 1"),
    (
        {"executors": [{}] * 1_000_000},
        "executors[0].image: Field required; executors[0].command: Field required",
    ),
    (
        {"executors": [{"image": "i", "command": [1] * 1_000_000}]},
        "executors[0].command[0]: Input should be a",
    ),
    ({"executors": [SMALL] * 1001}, "executors: List should have at most 1000 items"),
    (
        {"executors": [SMALL], "tags": dict.fromkeys(map(str, range(300_000)), 1)},
        "tags: has 300000 entries; at",
    ),
    ({"executors": [SMALL], "volumes": ["/a"] * 10_001}, "volumes: List should have at most 10000 items"),
]


@pytest.mark.parametrize(("body", "words"), ENDLESS)
def test_of_what_is_wrong_a_million_times_the_first_is_told(body, words):
    sent = json.dumps(body).encode()
    start = time.process_time()
    with pytest.raises(InvalidTask) as raised:
        parse_task(sent)
    assert str(raised.value).startswith(words)
    assert time.process_time() - start < 5


@given(st.binary())
def test_any_bytes_are_refused_with_a_sentence(body):
    with pytest.raises((InvalidTask, MalformedBody)):
        parse_task(body)
