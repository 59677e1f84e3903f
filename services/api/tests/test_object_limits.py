"""What the kernel and Kubernetes accept of a task, counted on its objects."""

import json
import re
import time

import pytest

from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask
from poiesis_api.object_limits import STRING_BYTES, STRINGS_BYTES, check_objects, stored_bytes
from poiesis_api.validation import validate
from poiesis_models.tes import TesTaskRequest

SH = {"image": "busybox", "command": ["sh", "-c", "true"]}


def task(*executors, **fields):
    return TesTaskRequest.model_validate({"executors": list(executors) or [SH], **fields})


def checked(config, request):
    accepted, _ = validate(request, config)
    check_objects(accepted, [], config)


def command(*arguments):
    return {"image": "busybox", "command": ["sh", *arguments]}


LONG = "x" * (STRING_BYTES - 1)

TOO_LONG = [
    (command("-c", "echo start; : " + "x" * 200_000), "executors[0].command[2]", "200014 bytes"),
    (command(LONG + "x"), "executors[0].command[1]", "131072 bytes long; the kernel's maximum is 131071"),
    (command("ä" * 65_536), "executors[0].command[1]", "131072 bytes"),
    (SH | {"env": {"A": LONG}}, "executors[0].env", "executors[0].env['A'] is 131073 bytes long"),
    (SH | {"env": {"A": LONG[1:]}}, "executors[0].env", "131072 bytes"),
]


@pytest.mark.parametrize(("executor", "field", "words"), TOO_LONG)
def test_a_string_that_no_kernel_accepts_is_refused(config, executor, field, words):
    with pytest.raises(InvalidTask) as raised:
        checked(config, task(executor))
    assert raised.value.field == field
    assert words in str(raised.value)
    assert "(send the text as an input with content or url, and pass its path)" in str(raised.value)


@pytest.mark.parametrize(
    "executor",
    [command(LONG), command("ä" * 65_535), SH | {"env": {"A": LONG[2:]}}, command("$" * (STRING_BYTES - 1))],
)
def test_the_longest_strings_are_accepted(config, executor):
    checked(config, task(executor))


def test_total_size_counts_a_pointer_per_argument(config):
    most = STRINGS_BYTES // (1 + 1 + 8)
    checked(config, task(command(*["a"] * (most - 1000))))
    with pytest.raises(
        InvalidTask, match=r"container executor-0 .* arguments and variables of \d+ bytes"
    ) as raised:
        checked(config, task(command(*["a"] * most)))
    assert raised.value.field == "executors"


def executors(count, **fields):
    return [SH | fields for _ in range(count)]


def outputs(count):
    return [{"url": f"s3://b/{n}", "path": f"/out/{n}.txt"} for n in range(count)]


def directories(count):
    name = "/cromwell-executions/JointGenotyping/3c1f0f52-9b5e-4d0a-8f7e-2a6c4b1d9e80/call-X/shard-0/inputs"
    return [
        {"url": "s3://b/x", "path": f"{name}/{n:010d}/sample.g.vcf.gz", "type": "FILE"} for n in range(count)
    ]


def test_as_many_executors_as_are_documented_are_accepted(config):
    full = {"env": {f"VARIABLE_{n}": "value" for n in range(5)}, "stdout": "/out/log"}
    checked(config, task(*executors(100, **full), outputs=outputs(20), volumes=["/scratch"]))


def test_more_executors_are_refused_with_the_number(config):
    with pytest.raises(InvalidTask, match=r"has 315; the maximum is 100 \(limits\.executors\)") as raised:
        checked(config, task(*executors(315), outputs=outputs(1)))
    assert raised.value.field == "executors"


def test_task_with_too_large_pod_is_rejected(config):
    large = [command(*[f"{number}" + "x" * 100_000 for _ in range(1)]) for number in range(12)]
    with pytest.raises(InvalidTask) as raised:
        checked(config, task(*large))
    assert raised.value.field == "executors"
    found = re.search(r"its Pod has about (\d+) bytes; the maximum is 1048576", str(raised.value))
    assert found is not None
    assert int(found[1]) > 12 * 100_000


def test_the_operator_sets_both_limits(config):
    limits = {"bodyBytes": 1000, "bodySeconds": 1, "executors": 3, "taskObjectBytes": 65536}
    small = Document.model_validate(config.model_dump(by_alias=True) | {"limits": limits})
    checked(small, task(*executors(3)))
    with pytest.raises(InvalidTask, match="maximum is 3"):
        checked(small, task(*executors(4)))
    with pytest.raises(InvalidTask, match="maximum is 65536"):
        checked(small, task(command("x" * 60_000)))


@pytest.mark.parametrize("count", [1200, 3500, 10_000])
def test_documented_number_of_input_directories_is_accepted(config, count):
    checked(config, task(inputs=directories(count)))


@pytest.mark.parametrize("more", [{"command": ["x" * 500]}, {"env": {"A": "b"}}, {"stdout": "/a/b"}])
def test_what_is_added_to_a_task_counts(config, more):
    job = {"spec": {"template": {"spec": {"initContainers": [], "containers": []}}}}
    spec = job["spec"]["template"]["spec"]
    empty = stored_bytes(job)
    spec["initContainers"].append({"name": "a", **more})
    assert stored_bytes(job) > empty + len(json.dumps(spec["initContainers"])) + 1000


def test_repeated_mounts_are_counted_before_creation(config):
    paths = [f"/{'d' * 200}-{number}" for number in range(60)]
    start = time.process_time()
    with pytest.raises(InvalidTask, match=r"its Pod has about \d+ bytes"):
        checked(config, task(*executors(100), volumes=paths))
    assert time.process_time() - start < 5
