"""The cheap bound of a Pod's size is never below the exact size, so it accepts nothing that is too large."""

import json

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from poiesis_api import object_limits
from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask
from poiesis_api.object_limits import check_objects, pod_bound, stored_bytes
from poiesis_api.pod_bound import MOST_FILES, MOST_TEXT
from poiesis_e2e.install import merged
from poiesis_models.tes import TesTaskRequest

SHARED = [
    {"prefix": "/nfs/a", "volume": {"persistentVolumeClaim": {"claimName": "a"}}, "writable": True},
    {"prefix": "/nfs/b", "volume": {"persistentVolumeClaim": {"claimName": "a"}}, "subPath": "b"},
]
S3 = {
    "endpoint": "https://s3.example.org",
    "region": "eu",
    "secretName": "storage",
    "caSecret": {"name": "ca", "key": "tls.crt"},
    "credentials": [{"name": "lab", "urls": ["s3://lab/"], "secretName": "lab"}],
}
CONFIGURATIONS = {
    "example": {},
    "storage": {"storage": {"s3": S3, "sharedVolumes": SHARED, "streaming": True}},
    "rclone": {"storage": {"rclone": {"schemes": ["gs", "sftp"], "secretName": "rclone"}}},
    "upload": {"executors": {"onError": "upload", "outputsAfterKillSeconds": 60}, "volume": {"type": "pvc"}},
    "skip": {"executors": {"onError": "skip"}, "volume": {"type": "emptyDir"}},
    "user": {"executors": {"securityContext": {"runAsUser": 1000, "runAsNonRoot": True}}},
    "pod": {"pod": {"annotations": {"note": "ä" * 2000}, "labels": {"team": "x"}}},
}

# Characters that JSON, Kubernetes or ASCII escape, and those of paths.
TEXT = st.text(alphabet='a/$"\\\n\x01\x7f ä€😀*', max_size=40)
NAME = st.text(alphabet='ab$"\\\x01\x7f ä€😀', min_size=1, max_size=60).filter(lambda name: name.strip())
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
FILE = st.one_of(PATH, st.sampled_from(["/etc/x", "/usr/y", "/a/b/c", "/a/b", "/a"]))
SCHEME = st.sampled_from(["s3", "https", "gs", "sftp", "file"])
URL = st.builds("{}://b/{}".format, SCHEME, st.sampled_from(["x", "d/", "ä"]))
KIND = st.sampled_from([None, "FILE", "DIRECTORY"])
INPUT = st.one_of(
    st.fixed_dictionaries({"url": URL, "path": FILE, "type": KIND, "streamable": st.booleans()}),
    st.fixed_dictionaries({"content": TEXT.filter(bool), "path": FILE, "type": st.just("FILE")}),
)
PATTERN = PATH.map(lambda path: {"path": f"{path}/*.txt", "path_prefix": path})
OUTPUT = st.builds(
    lambda url, place, kind: {"url": url, "type": kind} | place,
    URL,
    st.one_of(FILE.map(lambda path: {"path": path}), PATTERN),
    KIND,
)
EXECUTOR = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["a", "b", "registry.example.org/" + "c" * 200]),
        "command": st.lists(TEXT, max_size=6).map(lambda arguments: ["$x", *arguments]),
    },
    optional={
        "env": st.dictionaries(st.text("AB_", min_size=1, max_size=12), TEXT, max_size=12),
        "stdin": FILE,
        "stdout": FILE,
        "stderr": FILE,
        "workdir": FILE,
        "ignore_error": st.booleans(),
    },
)
RESOURCES = st.fixed_dictionaries(
    {}, optional={"cpu_cores": st.just(2**31 - 1), "ram_gb": st.just(1e9), "disk_gb": st.just(1e9)}
)
TASK = st.fixed_dictionaries(
    {"executors": st.lists(EXECUTOR, min_size=1, max_size=5)},
    optional={
        "inputs": st.lists(INPUT, max_size=12),
        "outputs": st.lists(OUTPUT, max_size=12),
        "volumes": st.lists(PATH, max_size=6),
        "resources": RESOURCES,
        "description": TEXT,
    },
)


def changed(config, change):
    return Document.model_validate(merged(config.model_dump(by_alias=True), change))


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def configured(request, config):
    document = changed(config, CONFIGURATIONS[request.param])
    return document, pod_bound(document)


def only_served(request, document):
    """Leave out the files that no filer of this configuration serves."""
    kept = dict(request)
    for name, filers in (("inputs", document.input_filers), ("outputs", document.output_filers)):
        files = request.get(name, [])
        kept[name] = [one for one in files if "url" not in one or one["url"].partition(":")[0] in filers]
    try:
        return TesTaskRequest.model_validate(kept)
    except ValidationError:  # a path that ends in an escape
        reject()


def strings(job):
    for one in object_limits._containers(job):
        hook = one.get("lifecycle", {}).get("postStart", {}).get("exec", {}).get("command", [])
        yield from (*hook, *map(object_limits._unescaped, one.get("command", [])))
        for variable in one.get("env", []):
            yield f"{variable['name']}={object_limits._unescaped(variable.get('value', ''))}"


def assert_bound_holds(task, document, bound):
    size = bound.size(task, [])
    assert size is not None
    job = object_limits._job(task, [], document)
    mounts = [one.get("volumeMounts", []) for one in object_limits._containers(job)]
    longest = max(len(one.encode()) + 1 for one in strings(job))
    assert size.stored >= stored_bytes(job)
    assert size.stored >= len(task.executors) * max(len(json.dumps(one)) for one in mounts)
    assert size.longest >= longest
    total = max(sum(len(one.encode()) + 9 for one in strings(job)), 0)
    assert 3 * size.stored >= total


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=TASK)
def test_bound_is_at_least_the_exact_size(configured, request):
    document, bound = configured
    assert_bound_holds(only_served(request, document), document, bound)


def many(count):
    deep = [{"url": f"s3://b/{n}", "path": "/in" + "/d" * n, "type": "DIRECTORY"} for n in range(1, count)]
    flat = [{"url": f"s3://b/{n}", "path": f"/x{n}/y", "type": "FILE"} for n in range(count)]
    small = [{"content": "c", "path": f"/c{n}/y", "type": "FILE"} for n in range(count)]
    return {"deep": deep, "flat": flat, "contents": small}


@pytest.mark.parametrize("kind", ["deep", "flat", "contents"])
@pytest.mark.parametrize("executors", [1, 4])
def test_bound_holds_for_many_inputs(configured, kind, executors):
    document, bound = configured
    commands = [{"image": f"image-{n}", "command": ["c"], "workdir": f"/w{n}"} for n in range(executors)]
    task = TesTaskRequest.model_validate({"executors": commands, "inputs": many(MOST_FILES // 2)[kind]})
    assert_bound_holds(task, document, bound)


def test_bound_holds_for_many_short_variables_and_arguments(configured):
    document, bound = configured
    env = {f"A{n}": "" for n in range(1000)}
    executors = [{"image": "i", "command": ["$"] * 3000, "env": env}]
    assert_bound_holds(TesTaskRequest.model_validate({"executors": executors}), document, bound)


EXECUTOR_ONLY = {"executors": [{"image": "i", "command": ["c"]}]}


def test_ordinary_task_is_accepted_without_its_pod(config, monkeypatch):
    bound = pod_bound(config)
    monkeypatch.setattr(object_limits, "task_objects", None)
    inputs = [{"url": f"s3://b/{n}", "path": f"/in/{n}"} for n in range(20)]
    task = TesTaskRequest.model_validate(EXECUTOR_ONLY | {"inputs": inputs})
    check_objects(task, [], config, bound)


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": {"backend_parameters": {"gpu_count": "1"}}},
        {"description": "x" * MOST_TEXT},
        {"volumes": [], "inputs": [{"url": "s3://b/x", "path": f"/{n}"} for n in range(MOST_FILES + 1)]},
    ],
)
def test_bound_is_unknown_for_unusual_tasks(config, fields):
    task = TesTaskRequest.model_validate(EXECUTOR_ONLY | fields)
    assert pod_bound(config).size(task, []) is None


def test_bound_is_unknown_for_tasks_with_credentials(config):
    assert pod_bound(config).size(TesTaskRequest.model_validate(EXECUTOR_ONLY), ["lab"]) is None


def test_too_large_task_is_rejected_with_a_bound(config):
    commands = [{"image": "i", "command": ["x" * 1000]} for _ in range(20)]
    task = TesTaskRequest.model_validate({"executors": commands})
    limits = config.limits.model_copy(update={"task_object_bytes": 65536})
    small = config.model_copy(update={"limits": limits})
    with pytest.raises(InvalidTask, match="the maximum is 65536"):
        check_objects(task, [], small, pod_bound(small))
