"""The sidecars that send outputs after an executor was killed with its container."""

import json
from uuid import UUID

import pytest

from poiesis_api.config import Document
from poiesis_api.taskpod import Task, task_objects
from poiesis_models.plan import PodPlan
from poiesis_models.tes import TesTaskRequest

OUTPUT = {"path": "/o/a", "url": "s3://b/a"}
OTHER = {"path": "/o/b", "url": "drs://host/b"}


def pod(config, **fields):
    request = TesTaskRequest.model_validate(
        {"executors": [{"image": "busybox", "command": ["true"]}], **fields}
    )
    made = task_objects(Task(id=UUID(int=1), request=request, nonce="n", recorder_token="token"), config)
    return made.job["spec"]["template"]


def containers(template):
    return {one["name"]: one for one in template["spec"]["initContainers"]}


def after_kill(config, seconds, **executors):
    document = config.model_dump(by_alias=True)
    document["executors"] |= {"outputsAfterKillSeconds": seconds, **executors}
    return Document.model_validate(document)


def test_sidecar_is_the_output_filer_that_waits(config):
    found = containers(pod(config, outputs=[OUTPUT]))
    rescue, tof = found["rescue-0"], found["tof-0"]

    assert list(found) == ["trec", "rescue-0", "prepare-0", "executor-0", "tof-0"]
    same = ("image", "imagePullPolicy", "env", "envFrom", "securityContext")
    assert {key: rescue[key] for key in same} == {key: tof[key] for key in same}
    assert rescue["restartPolicy"] == "Always"
    assert rescue["resources"] == {
        "requests": {"cpu": "10m", "memory": "8Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    assert rescue["command"] == [
        *("/poiesis/bin/helper", "rescue", "--run", "/poiesis/run", "--runs", "/poiesis/runs"),
        *("--killed", "executor-", "--unless", "tof-", "--ask", "/poiesis/ack/rescue", "--"),
        *("/poiesis/bin/helper", "run", "--run", "/poiesis/run", "--log-bytes", "65536", "--grace", "10"),
        *("--time-limit", "60", "--rerun", "--retry-exit-code", "75", "--retry-attempts", "5"),
        *("--retry-killed", "--", "python3", "-m", "poiesis_tof"),
    ]
    assert rescue["volumeMounts"] == [
        {"name": "bin", "mountPath": "/poiesis/bin", "readOnly": True},
        {"name": "run", "mountPath": "/poiesis/run", "subPath": "rescue-0"},
        {"name": "ack", "mountPath": "/poiesis/ack", "readOnly": True},
        {"name": "task", "mountPath": "/task"},
        {"name": "spec-tof-0", "mountPath": "/poiesis/spec", "readOnly": True},
        {"name": "run", "mountPath": "/poiesis/runs", "readOnly": True},
    ]


def test_grace_period_includes_time_for_sending(config):
    assert pod(config, outputs=[OUTPUT])["spec"]["terminationGracePeriodSeconds"] == 30 + 60 + 10
    changed = after_kill(config, 300)
    assert pod(changed, outputs=[OUTPUT])["spec"]["terminationGracePeriodSeconds"] == 30 + 300 + 10


def test_executors_keep_the_grace_that_they_had(config):
    template = pod(config, outputs=[OUTPUT])
    command = containers(template)["executor-0"]["command"]
    environment = {one["name"]: one.get("value") for one in containers(template)["trec"]["env"]}

    assert command[command.index("--grace") + 1] == "30"
    assert environment["POIESIS_GRACE_SECONDS"] == "30"


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {}),
        ({"inputs": [{"path": "/i/a", "url": "s3://b/a"}]}, {}),
        ({"outputs": [OUTPUT]}, {"seconds": 0}),
        ({"outputs": [OUTPUT]}, {"onError": "skip"}),
    ],
)
def test_other_tasks_pay_nothing(config, fields, changes):
    template = pod(after_kill(config, **{"seconds": 60, **changes}), **fields)

    assert not [name for name in containers(template) if name.startswith("rescue")]
    assert template["spec"]["terminationGracePeriodSeconds"] == 30


def test_each_output_filer_has_its_own_sidecar(config):
    document = config.model_dump(by_alias=True)
    mine = {"schemes": ["drs"], "image": "registry.example/drs:1", "command": ["/drs", "$x"]}
    document["filers"].append({"name": "drs", "outputs": mine, "secretName": "drs-keys"})
    template = pod(Document.model_validate(document), outputs=[OUTPUT, OTHER])
    found = containers(template)

    assert [name for name in found if name.startswith("rescue")] == ["rescue-0", "rescue-1"]
    assert found["rescue-1"]["image"] == "registry.example/drs:1"
    assert found["rescue-1"]["command"][-3:] == ["--", "/drs", "$$x"]
    mounted = {one["mountPath"]: one["name"] for one in found["rescue-1"]["volumeMounts"]}
    assert mounted["/poiesis/secret"] == "secret-1"
    plan = PodPlan.from_json(template["metadata"]["annotations"]["poiesis.io/plan"])
    assert plan.rescues == ("rescue-0", "rescue-1")


def test_every_volume_that_a_sidecar_mounts_exists(config):
    spec = pod(config, outputs=[OUTPUT, {**OUTPUT, "path": "/p/a"}])["spec"]
    volumes = {one["name"] for one in spec["volumes"]}
    mounts = {one["name"] for one in spec["initContainers"][1]["volumeMounts"]}
    assert mounts <= volumes
    assert json.dumps(spec).count('"rescue-0"') == 2  # its name and its run directory
