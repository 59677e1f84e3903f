"""Backend parameters: which are allowed, the warnings about others, and what they change in a TaskPod."""

from uuid import UUID

import pytest

from poiesis_api.config import BackendParameters, Document
from poiesis_api.errors import InvalidTask
from poiesis_api.grants import has_limited_values, parameters_for
from poiesis_api.identity.caller import ANONYMOUS, Caller
from poiesis_api.parameters import (
    accepted_parameters,
    check_combination,
    supported_keys,
    toleration,
    with_default_gpu,
    with_parameters,
)
from poiesis_api.taskpod import Task, task_objects
from poiesis_models.tes import TesResources, TesTaskRequest

ALLOWED = BackendParameters(
    queue=["lab", "night"],
    queue_priority=["urgent"],
    priority_class=["high"],
    node_selector=["disk=ssd", "pool=big"],
    tolerations=["pool=big:NoSchedule", "spot"],
    runtime_class=["gvisor"],
    gpu_resource=["nvidia.com/gpu", "amd.com/gpu"],
    gpu_count=4,
    image_pull_secret=["registry"],
    wall_time_seconds=3600,
    volume_type=["ephemeral", "emptyDir"],
    storage_class=["fast"],
)


def resources(strict=None, **parameters):
    return TesResources(backend_parameters=parameters, backend_parameters_strict=strict)


def job_of(config, parameters, **fields):
    request = TesTaskRequest.model_validate(
        {
            "executors": [{"image": "tool", "command": ["true"]}],
            "volumes": ["/data"],
            "resources": {"backend_parameters": parameters},
            **fields,
        }
    )
    task = Task(id=UUID(int=1), request=request, nonce="n", recorder_token="t")
    return task_objects(task, config.model_copy(update={"backend_parameters": ALLOWED})).job


def test_nothing_exists_that_the_operator_has_not_allowed():
    assert supported_keys(BackendParameters()) == []
    assert supported_keys(BackendParameters(gpu_resource=["x/gpu"], wall_time_seconds=1)) == [
        "gpu_resource",
        "wall_time_seconds",
    ]
    assert supported_keys(ALLOWED) == sorted(BackendParameters.model_fields)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("queue", "lab"),
        ("QUEUE", "night"),
        ("queue_priority", "urgent"),
        ("Priority_Class", "high"),
        ("node_selector", "disk=ssd"),
        ("node_selector", "pool=big, disk=ssd"),
        ("tolerations", "spot,pool=big:NoSchedule"),
        ("gpu_resource", "amd.com/gpu"),
        ("gpu_count", "1"),
        ("gpu_count", "4"),
        ("wall_time_seconds", "0060"),
        ("wall_time_seconds", "3600"),
        ("volume_type", "emptyDir"),
    ],
)
def test_what_is_allowed_counts_and_keeps_its_spelling(key, value):
    assert accepted_parameters(resources(**{key: value}), ALLOWED) == ({key: value}, [])
    assert accepted_parameters(resources(strict=True, **{key: value}), ALLOWED) == ({key: value}, [])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "VmSize",
            "big",
            "'VmSize' is not supported (supported: gpu_count, gpu_resource, image_pull_secret, ",
        ),
        ("queue", "other", "'queue' must be one of lab, night, got 'other'"),
        ("queue", "lab,night", "got 'lab,night'"),
        ("queue", "Lab", "got 'Lab'"),
        ("queue", "", "got ''"),
        (
            "node_selector",
            "disk=ssd,disk=hdd",
            "'node_selector' must be one of disk=ssd, pool=big, got 'disk=ssd,",
        ),
        ("tolerations", "spot,", "got 'spot,'"),
        ("gpu_count", "5", "'gpu_count' must be between 1 and 4, got '5'"),
        ("gpu_count", "0", "got '0'"),
        ("gpu_count", "-1", "got '-1'"),
        ("gpu_count", "1.5", "got '1.5'"),
        ("gpu_count", "\u0661", "must be between 1 and 4"),
        ("wall_time_seconds", "9" * 5000, "must be between 1 and 3600"),
        ("volume_type", "pvc", "'volume_type' must be one of ephemeral, emptyDir, got 'pvc'"),
    ],
)
def test_unsupported_parameter_warns_or_rejects_strict_task(key, value, words):
    accepted, warnings = accepted_parameters(resources(queue_priority="urgent", **{key: value}), ALLOWED)
    assert accepted == {"queue_priority": "urgent"}
    (warning,) = warnings
    assert words in warning
    assert warning.endswith("; it has been ignored")
    with pytest.raises(InvalidTask) as raised:
        accepted_parameters(resources(strict=True, **{key: value}), ALLOWED)
    assert raised.value.field == "resources.backend_parameters"
    assert words in str(raised.value)


@pytest.mark.parametrize("strict", [None, False, True])
def test_a_key_in_two_spellings_is_refused(strict):
    with pytest.raises(InvalidTask, match="'queue' and 'Queue' differ only in case"):
        accepted_parameters(resources(strict=strict, queue="lab", Queue="night"), ALLOWED)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("spot", {"key": "spot", "operator": "Exists"}),
        ("spot:NoExecute", {"key": "spot", "operator": "Exists", "effect": "NoExecute"}),
        ("pool=big", {"key": "pool", "operator": "Equal", "value": "big"}),
        ("pool=:NoSchedule", {"key": "pool", "operator": "Equal", "value": "", "effect": "NoSchedule"}),
    ],
)
def test_toleration_has_kubectl_taint_syntax(given, made):
    assert toleration(given) == made


def _pod(job):
    return job["spec"]["template"]["spec"]


def _executor(job):
    return next(one for one in _pod(job)["initContainers"] if one["name"] == "executor-0")


def test_task_without_parameters_uses_operator_configuration(config):
    assert job_of(config, {}) == job_of(config, None)
    assert with_parameters(config, {}) == config


@pytest.mark.parametrize(
    ("parameters", "look", "expected"),
    [
        ({"queue": "lab"}, lambda job: job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "lab"),
        (
            {"queue": "lab", "Queue_Priority": "urgent"},
            lambda job: job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"],
            "urgent",
        ),
        ({"priority_class": "high"}, lambda job: _pod(job)["priorityClassName"], "high"),
        (
            {"node_selector": "disk=ssd,pool=big"},
            lambda job: _pod(job)["nodeSelector"],
            {"disk": "ssd", "pool": "big"},
        ),
        (
            {"tolerations": "spot"},
            lambda job: _pod(job)["tolerations"],
            [{"key": "spot", "operator": "Exists"}],
        ),
        ({"runtime_class": "gvisor"}, lambda job: _pod(job)["runtimeClassName"], "gvisor"),
        (
            {"gpu_count": "2"},
            lambda job: _executor(job)["resources"]["limits"]["nvidia.com/gpu"],
            "2",
        ),
        (
            {"gpu_resource": "amd.com/gpu"},
            lambda job: _executor(job)["resources"]["requests"]["amd.com/gpu"],
            "1",
        ),
        (
            {"gpu_resource": "amd.com/gpu", "gpu_count": "3"},
            lambda job: [key for key in _executor(job)["resources"]["limits"] if "gpu" in key],
            ["amd.com/gpu"],
        ),
        (
            {"image_pull_secret": "registry"},
            lambda job: _pod(job)["imagePullSecrets"],
            [{"name": "registry"}],
        ),
        ({"wall_time_seconds": "60"}, lambda job: _pod(job)["activeDeadlineSeconds"], 60),
        (
            {"volume_type": "emptyDir"},
            lambda job: [one.keys() for one in _pod(job)["volumes"] if one["name"] == "task"],
            [{"name", "emptyDir"}],
        ),
        (
            {"volume_type": "ephemeral", "storage_class": "fast"},
            lambda job: [
                one["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"]
                for one in _pod(job)["volumes"]
                if one["name"] == "task"
            ],
            ["fast"],
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_parameter_changes_the_objects_of_its_task(config, parameters, look, expected):
    assert look(job_of(config, parameters)) == expected


def test_what_the_operator_gives_to_every_task_stays(config):
    pod = config.pod.model_copy(
        update={
            "node_selector": {"disk": "hdd", "zone": "a"},
            "tolerations": [{"key": "tes", "operator": "Exists"}],
            "active_deadline_seconds": 30,
        }
    )
    images = config.images.model_copy(update={"pull_secrets": ["ours"]})
    executors = config.executors.model_copy(update={"extended_resources": {"example.org/fuse": "1"}})
    every = config.model_copy(update={"pod": pod, "images": images, "executors": executors})
    job = job_of(
        every,
        {
            "node_selector": "disk=ssd",
            "tolerations": "spot",
            "wall_time_seconds": "60",
            "image_pull_secret": "registry",
            "gpu_count": "1",
        },
    )
    assert _pod(job)["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert [one["key"] for one in _pod(job)["tolerations"]] == ["tes", "spot"]
    assert _pod(job)["activeDeadlineSeconds"] == 30
    assert _pod(job)["imagePullSecrets"] == [{"name": "ours"}, {"name": "registry"}]
    assert (
        _executor(job)["resources"]["limits"].items()
        >= {"example.org/fuse": "1", "nvidia.com/gpu": "1"}.items()
    )


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"queue": "lab"}, "a task in a queue needs volume_type ephemeral or emptyDir"),
        ({"queue_priority": "urgent"}, "queue_priority requires queue"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(config, parameters, words):
    with pytest.raises(InvalidTask, match=words):
        check_combination(config, parameters)
    check_combination(config, {"queue": "lab", "volume_type": "emptyDir", **parameters})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gpuCount": 1}, "gpuResource must not be empty if gpuCount"),
        ({"nodeSelector": ["ssd"]}, "nodeSelector"),
        ({"tolerations": ["spot:Never"]}, "tolerations"),
        ({"volumeType": ["nfs"]}, "volumeType"),
        ({"other": []}, "other"),
    ],
)
def test_invalid_allowed_values_are_a_configuration_error(config, values, words):
    document = config.model_dump(by_alias=True) | {"backendParameters": values}
    with pytest.raises(ValueError, match=words):
        Document.model_validate(document)


ALICE = Caller(name="alice", groups=("lab-a",))
BOB = Caller(name="bob", groups=("lab-b",))
LIMITED = BackendParameters(
    queue=["night", {"value": "lab-a", "groups": ["lab-a"]}],
    image_pull_secret=[{"value": "registry", "users": ["alice"], "groups": ["lab-c"]}],
    node_selector=[{"value": "disk=ssd", "groups": ["lab-b"]}],
    gpu_resource=[{"value": "nvidia.com/gpu", "groups": ["lab-a"]}, {"value": "amd.com/gpu"}],
    gpu_count=4,
    wall_time_seconds=60,
)


def allowed_values(caller):
    return {
        name: [entry.value for entry in values] if isinstance(values, list) else values
        for name, values in parameters_for(caller, LIMITED)
        if values
    }


def test_value_is_for_its_users_and_groups_only():
    for_all = {"queue": ["night"], "gpu_resource": ["amd.com/gpu"], "gpu_count": 4, "wall_time_seconds": 60}
    assert allowed_values(ANONYMOUS) == for_all
    assert allowed_values(BOB) == for_all | {"node_selector": ["disk=ssd"]}
    assert allowed_values(ALICE) == for_all | {
        "queue": ["night", "lab-a"],
        "image_pull_secret": ["registry"],
        "gpu_resource": ["nvidia.com/gpu", "amd.com/gpu"],
    }


def test_values_of_others_are_not_named_in_errors():
    theirs = parameters_for(BOB, LIMITED)
    with pytest.raises(InvalidTask, match="'queue' must be one of night, got 'lab-a'"):
        accepted_parameters(resources(strict=True, queue="lab-a"), theirs)
    with pytest.raises(InvalidTask, match="'image_pull_secret' is not supported") as raised:
        accepted_parameters(resources(strict=True, image_pull_secret="registry"), theirs)
    assert "lab-a" not in str(raised.value)
    accepted, warnings = accepted_parameters(resources(queue="lab-a"), theirs)
    assert accepted == {}
    assert len(warnings) == 1


def test_supported_keys_are_those_of_the_caller():
    keys = ["gpu_count", "gpu_resource", "queue", "wall_time_seconds"]
    assert supported_keys(parameters_for(ANONYMOUS, LIMITED)) == keys
    assert supported_keys(parameters_for(ALICE, LIMITED)) == sorted([*keys, "image_pull_secret"])
    only = BackendParameters(gpu_resource=[{"value": "x/gpu", "users": ["alice"]}], gpu_count=1)
    assert supported_keys(parameters_for(BOB, only)) == []
    assert supported_keys(parameters_for(ALICE, only)) == ["gpu_count", "gpu_resource"]


def test_credentials_matter_only_with_limited_values():
    assert has_limited_values(LIMITED)
    assert not has_limited_values(ALLOWED)


@pytest.mark.parametrize(
    ("caller", "given", "stored"),
    [
        (ALICE, {"gpu_count": "2"}, {"gpu_count": "2"}),
        (BOB, {"gpu_count": "2"}, {"gpu_count": "2", "gpu_resource": "amd.com/gpu"}),
        (BOB, {"GPU_Count": "2", "GPU_Resource": "amd.com/gpu"}, None),
        (BOB, {"queue": "night"}, None),
    ],
)
def test_default_gpu_is_one_that_the_caller_may_use(caller, given, stored):
    named = with_default_gpu(given, parameters_for(caller, LIMITED), LIMITED)
    assert named == (given if stored is None else stored)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"queue": [{"value": ""}]}, "queue.0.value"),
        ({"queue": [{"value": "a", "user": ["x"]}]}, "queue.0.user"),
        ({"queue": [{"value": "a", "groups": []}]}, "queue.0.groups"),
        ({"queue": [{"groups": ["x"]}]}, "queue.0.value"),
        ({"nodeSelector": [{"value": "ssd"}]}, "nodeSelector.0.value"),
        ({"volumeType": [{"value": "nfs"}]}, "volumeType.0.value"),
        ({"queue": [5]}, "queue.0"),
    ],
)
def test_invalid_entry_is_a_configuration_error(config, values, words):
    document = config.model_dump(by_alias=True) | {"backendParameters": values}
    with pytest.raises(ValueError, match=words):
        Document.model_validate(document)
