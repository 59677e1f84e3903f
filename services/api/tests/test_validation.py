import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask, MalformedBody, NotAllowed
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
        "is a file with this path",
    ),
    (
        "a volume that is a file",
        task(inputs=[{"path": "/a/b", "content": "x"}], volumes=["/a/b"]),
        "volumes[0]",
        "inputs[0].path is a file with this path",
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
    (
        "a kernel's workdir",
        task(executor={"workdir": "/proc/self/fd/8"}),
        "executors[0].workdir",
        "system /proc",
    ),
    (
        "a device's workdir",
        task(executor={"workdir": "/dev/fd/8"}),
        "executors[0].workdir",
        "is in the kernel file system /dev",
    ),
    (
        "a workdir in /sys",
        task(executor={"workdir": "/sys"}),
        "executors[0].workdir",
        "is in the kernel file system /sys",
    ),
    (
        "a stdout of process 1",
        task(executor={"stdout": "/proc/1/fd/1"}),
        "executors[0].stdout",
        "(accepted there: /dev/full, /dev/null, /dev/shm, /dev/stderr, /dev/stdout, /dev/zero)",
    ),
    (
        "a stdin in /sys",
        task(executor={"stdin": "/sys/kernel/notes"}),
        "executors[0].stdin",
        "is in the kernel file system /sys",
    ),
    ("a stdin from stdout", task(executor={"stdin": "/dev/stdout"}), "executors[0].stdin", "/dev/urandom"),
    (
        "a stderr on a disk",
        task(executor={"stderr": "/dev/sda"}),
        "executors[0].stderr",
        "is in the kernel file system /dev",
    ),
    (
        "an input in /proc",
        task(inputs=[source("/proc/x")]),
        "inputs[0].path",
        "'/proc/x' is in the kernel file system /proc",
    ),
    ("an input device", task(inputs=[source("/dev/null")]), "inputs[0].path", "accepted there: /dev/shm)"),
    (
        "a directory in /sys",
        task(inputs=[source("/sys/x/")]),
        "inputs[0].path",
        "is in the kernel file system /sys",
    ),
    (
        "an output in /proc",
        task(outputs=[source("/proc/self/maps")]),
        "outputs[0].path",
        "is in the kernel file system /proc",
    ),
    (
        "an output device",
        task(outputs=[source("/dev/zero")]),
        "outputs[0].path",
        "is in the kernel file system /dev",
    ),
    (
        "a pattern of devices",
        task(outputs=[source("/dev/*")]),
        "outputs[0].path",
        "is in the kernel file system /dev",
    ),
    ("a volume in /dev", task(volumes=["/dev/mqueue"]), "volumes[0]", "is in the kernel file system /dev"),
    (
        "a workdir that is a file",
        task(inputs=[source("/a/b", type="FILE")], executor={"workdir": "/a/b"}),
        "executors[0].workdir",
        "inputs[0].path is a file with this path",
    ),
    (
        "a workdir in a file",
        task(inputs=[{"path": "/a", "content": "x"}], executor={"workdir": "/a/b"}),
        "executors[0].workdir",
        "inputs[0].path is a file with this path",
    ),
    ("a stream with a slash", task(executor={"stdout": "/a/"}), "executors[0].stdout", "must name a file"),
    ("a stream at the root", task(executor={"stdin": "/"}), "executors[0].stdin", "must name a file"),
    (
        "a stream that is a volume",
        task(volumes=["/a"], executor={"stdout": "/a"}),
        "executors[0].stdout",
        "volumes[0] makes it a directory",
    ),
    (
        "a stream that holds an input",
        task(inputs=[source("/a/b/c")], executor={"stderr": "/a/b"}),
        "executors[0].stderr",
        "inputs[0].path makes it a directory",
    ),
    (
        "a stream that is an output directory",
        task(outputs=[source("/a/", type="DIRECTORY")], executor={"stdin": "/a"}),
        "executors[0].stdin",
        "outputs[0].path makes it a directory",
    ),
    (
        "a stream that is a workdir",
        task(executor={"stdout": "/a", "workdir": "/a"}),
        "executors[0].stdout",
        "executors[0].workdir makes it a directory",
    ),
    (
        "a range that ends before it begins",
        task(outputs=[source("/out/[z-a].txt", path_prefix="/out")]),
        "outputs[0].path",
        "'/out/[z-a].txt' is not a valid path or pattern: the range 'z-a' ends before it begins",
    ),
    ("a class of no name", task(outputs=[source("/o/[[:a:]]")]), "outputs[0].path", "'[:a:]' is not a char"),
    ("a backslash at the end", task(outputs=[source("/o/a\\")]), "outputs[0].path", "must be followed by"),
    ("too many CPUs", task(resources={"cpu_cores": 257}), "resources.cpu_cores", "got 257"),
    (
        "too much memory",
        task(resources={"ram_gb": 4096.5}),
        "resources.ram_gb",
        "must be at most 4096 on this server (executors.maxResources.ramGb), got 4096.5",
    ),
    ("too large a disk", task(resources={"disk_gb": 1e9}), "resources.disk_gb", "maxResources.diskGb"),
    ("a long path", task(volumes=["/a" * 600]), "volumes[0]", "1200 bytes"),
    ("a long name", task(volumes=["/" + "a" * 256]), "volumes[0]", "256 bytes"),
    ("a long tag", task(tags={"k": "\u00e4" * 8193}), "tags.k", "16386 bytes"),
    ("a long URL", task(outputs=[source("/a/b", url="s3://" + "b" * 1600)]), "outputs[0].url", "1605 bytes"),
]


@pytest.mark.parametrize(
    ("request_", "field", "words"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_invalid_task_is_rejected_with_field_and_value(config, request_, field, words):
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
            "is outside every shared volume (/nfs/in, /nfs/out)",
        ),
        (
            task(inputs=[source("/a/b", url="file:///nfs/inner/x")]),
            "inputs[0].url",
            "is outside every shared volume",
        ),
        (task(inputs=[source("/a/b", url="file:///nfs/in/../out")]), "inputs[0].url", "'..'"),
        (task(inputs=[source("/a/b", url="file:///nfs/in/%2e%2e/out")]), "inputs[0].url", "'..'"),
        (task(inputs=[source("/a/b", url="file://nas/nfs/in/x")]), "inputs[0].url", "without a host"),
        (
            task(outputs=[source("/a/b", url="/nfs/in/x")]),
            "outputs[0].url",
            "is outside every writable shared volume (/nfs/out)",
        ),
    ],
)
def test_file_url_outside_shared_volumes_is_rejected(config, request_, field, words):
    with pytest.raises(InvalidTask) as raised:
        validate(request_, sharing(config))
    assert raised.value.field == field
    assert words in str(raised.value)


def test_shared_volumes_accept_urls_and_bare_paths(config):
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
    # An input without type may be a directory (field cases, group 2).
    task(
        inputs=[source("/ref", url="s3://b/ref/")],
        outputs=[source("/ref/genome.fa.fai", url="s3://b/idx/genome.fa.fai", type="FILE")],
    ),
    task(inputs=[source("/ref", url="s3://b/ref/")], volumes=["/ref"]),
    task(inputs=[source("/ref", url="s3://b/ref/"), {"path": "/ref/extra.txt", "content": "x"}]),
    task(inputs=[source("/ref")], outputs=[source("/ref/x/*.fai", path_prefix="/ref")]),
    task(inputs=[source("/ref")], executor={"workdir": "/ref/sub", "stdout": "/ref/log"}),
    task(inputs=[source("/ref/")]),
    task(inputs=[source("/ref/", url="s3://b")], outputs=[source("/ref/x/")], volumes=["/ref/"]),
    task(inputs=[source("/ref", type="FILE", url="s3://b/ref/"), source("/ref/x")]),
    # Devices that every container has.
    task(executor={"stdin": "/dev/null", "stdout": "/dev/stdout", "stderr": "/dev/null"}),
    task(executor={"stdin": "/dev/urandom", "stdout": "/dev/stderr", "workdir": "/dev/shm"}),
    task(volumes=["/dev/shm"], inputs=[source("/dev/shm/x")], outputs=[source("/dev/shm/y")]),
    task(volumes=["/process", "/system", "/devices"]),
    # The kubelet's own files give way, and a colon is an ordinary character.
    task(inputs=[source("/etc/hosts"), source("/etc/resolv.conf"), source("/data:x/y:z")]),
    task(volumes=["/data:x"], outputs=[source("/out:1/a", url="s3://b/a:b")], executor={"stdout": "/l:1/o"}),
    # Escaped brackets (field cases, group 4), also in the name of a directory.
    task(outputs=[source(r"/out/sample\[1\].txt", url="s3://b/o/one.txt", type="FILE")]),
    task(outputs=[source(r"/run\[1\]/*.txt", path_prefix=r"/run\[1\]")]),
    task(outputs=[source(r"/run\[1\]/*.txt", path_prefix="/run[1]")]),
    task(outputs=[source("/out/sample[1].txt", path_prefix="/out")]),
    task(outputs=[source("/out/a[b")], volumes=["/v[1]"], executor={"stdout": "/out/log[1].txt"}),
    task(tags={"k": "v" * 5000, "json": "\u00e4" * 8192}),
    task(resources={"cpu_cores": 256, "ram_gb": 4096, "disk_gb": 102400}),
]


@pytest.mark.parametrize("request_", ACCEPTED)
def test_what_works_is_accepted_without_warnings(config, request_):
    assert validate(request_, config) == (request_, [])


def test_pattern_without_prefix_uses_its_literal_directory(config):
    request_ = task(outputs=[source("/a/b/*/c?.txt"), source("/a/*", path_prefix="/a")])
    accepted, warnings = validate(request_, config)
    assert accepted == request_
    assert warnings == ["outputs[0].path_prefix is not set for the pattern '/a/b/*/c?.txt'; using '/a/b'"]


DOUBTFUL = [
    (
        "/out/s[1].txt",
        [
            "outputs[0].path_prefix is not set for the pattern '/out/s[1].txt'; using '/out'",
            (
                "outputs[0].path '/out/s[1].txt' is used as a pattern, and as the name of a file if"
                r" '/out/s[1].txt' exists; write '\[' and '\]' for a name"
            ),
        ],
    ),
    (
        r"/out/a\b",
        [r"outputs[0].path '/out/a\\b': the backslash in '\\b' is removed (write two for a backslash)"],
    ),
]


@pytest.mark.parametrize(("path", "lines"), DOUBTFUL)
def test_a_doubtful_reading_is_recorded(config, path, lines):
    request_ = task(outputs=[source(path)])
    assert validate(request_, config) == (request_, lines)


def test_escapes_do_not_lead_out_of_the_directory():
    for path in (r"/a/\.\./b", r"/a/\../*", r"/a\//b"):
        with pytest.raises(ValueError, match="path must not contain"):
            task(outputs=[source(path)])


def test_gpus_are_bounded_like_other_resources(config):
    given = config.model_dump(by_alias=True)
    given["backendParameters"] |= {"gpuResource": ["nvidia.com/gpu"], "gpuCount": 100}
    with_gpus = Document.model_validate(given)
    validate(task(resources={"backend_parameters": {"gpu_count": "64"}}), with_gpus)
    with pytest.raises(
        InvalidTask, match=r"at most 64 .*\(executors\.maxResources\.gpuCount\), got 65"
    ) as raised:
        validate(task(resources={"backend_parameters": {"gpu_count": "65"}}), with_gpus)
    assert raised.value.field == "resources.backend_parameters"


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
            "'A' is not supported (supported: none); it has been ignored",
            "'b' is not supported (supported: none); it has been ignored",
        ],
    )
    with pytest.raises(InvalidTask, match="'A' is not supported \\(supported: none\\); 'b' is not"):
        validate(task(resources=resources | {"backend_parameters_strict": True}), config)


SHAPES = [
    ({}, "executors", "executors: Field required"),
    ({"executors": []}, "executors", "executors: List should have at least 1 item"),
    (
        {"executors": [{"image": "i", "command": ["c"], "stdin": "x"}]},
        "executors[0].stdin",
        "executors[0].stdin must be an absolute path in the container, got 'x'",
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
        "tags: must have at most 10000 entries, got 300000",
    ),
    ({"executors": [SMALL], "volumes": ["/a"] * 10_001}, "volumes: List should have at most 10000 items"),
]


@pytest.mark.parametrize(("body", "words"), ENDLESS)
def test_only_first_invalid_item_is_reported(body, words):
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


def _with_path(field, path):
    if field in {"workdir", "stdin", "stdout", "stderr"}:
        return {"executors": [{"image": "i", "command": ["c"], field: path}]}
    fields = {
        "input": {"inputs": [{"path": path, "content": "x"}]},
        "output": {"outputs": [{"path": path, "url": "s3://b/k"}]},
        "volume": {"volumes": [path]},
    }
    return {"executors": [{"image": "i", "command": ["c"]}], **fields[field]}


@pytest.mark.parametrize("tree", ["proc", "sys", "dev"])
@pytest.mark.parametrize(
    "form", ["/{}/x", "/{}", "/{}/", "//{}/x", "/./{}/x", "/{}/./x", "/a/../{}/x", "/{}//x"]
)
@pytest.mark.parametrize("field", ["workdir", "stdin", "stdout", "stderr", "input", "output", "volume"])
def test_no_spelling_reaches_a_kernel_file_system(config, field, form, tree):
    path = form.format(tree)
    with pytest.raises(InvalidTask) as raised:
        validate(parse_task(json.dumps(_with_path(field, path)).encode()), config)
    assert path.rstrip("/") in str(raised.value)
    assert raised.value.field


@pytest.mark.parametrize("form", ["/proc/../proc/x", "/proc/../etc", "/dev/../proc/self"])
def test_no_path_leaves_a_kernel_file_system(config, form):
    with pytest.raises(InvalidTask, match="must not contain"):
        validate(parse_task(json.dumps(_with_path("workdir", form)).encode()), config)


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("busybox", True),
        ("docker.io/library/busybox:1.37", True),
        ("quay.io/bio/samtools:1", True),
        ("QUAY.io/bio/samtools:1", True),
        ("quay.io/biocontainers/samtools:1", False),
        ("docker.io/library-evil/x", False),
        ("alpine/git", False),
        ("10.0.0.1:22/x", False),
        ("169.254.169.254/latest/meta-data", False),
    ],
)
def test_only_images_of_the_list_run(config, image, allowed):
    document = config.model_dump(by_alias=True)
    document["executors"]["images"] = ["docker.io/library/", "quay.io/bio"]
    limited = Document.model_validate(document)
    request_ = task(executor={"image": image})
    validate(request_, config)
    if allowed:
        validate(request_, limited)
        return
    with pytest.raises(NotAllowed) as raised:
        validate(request_, limited)
    assert raised.value.field == "executors[0].image"
    assert image in str(raised.value)
    assert "(allowed: docker.io/library/, quay.io/bio)" in str(raised.value)
