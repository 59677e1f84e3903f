"""The conformance kit of filers starts them as the api has Kubernetes start them."""

from itertools import pairwise
from pathlib import Path

from poiesis_api.config import Document
from poiesis_api.taskpod import Task, task_objects
from poiesis_e2e.filer_kit.container import USER, Pod, Subject, run_arguments
from poiesis_models.tes import TesTaskRequest


def filer_container(config):
    """The filer's container of a task with one input."""
    side = {"schemes": ["x"], "image": "image", "command": ["/filer", "a b"]}
    shared = [{"prefix": "/nfs/a", "volume": {"nfs": {}}, "writable": True}]
    filer = {"name": "x", "inputs": side, "objectStorage": False, "secretName": "s", "sharedVolumes": shared}
    document = config.model_dump(by_alias=True) | {"filers": [filer], "filerRetryAttempts": 0}
    request = TesTaskRequest.model_validate(
        {"executors": [{"image": "i", "command": ["c"]}], "inputs": [{"path": "/d/a", "url": "x://a"}]}
    )
    task = Task(id="00000000-0000-4000-8000-000000000000", request=request, nonce="n", recorder_token="t")
    objects = task_objects(task, Document.model_validate(document))
    containers = objects.job["spec"]["template"]["spec"]["initContainers"]
    return next(one for one in containers if one["name"] == "tif-0")


def options(arguments, name):
    return [value for option, value in pairwise(arguments) if option == name]


def test_a_filer_is_started_alike(config, tmp_path: Path):
    container = filer_container(config)
    subject = Subject(
        image="image",
        command=("/filer", "a b"),
        secret={"key": "value"},
        shared={"/nfs/a": tmp_path},
        env={"POIESIS_SHARED": '[{"prefix":"/nfs/a","writable":true}]'},
    )
    arguments = Pod(subject, tmp_path, tmp_path).arguments("name", run_arguments(subject.command))
    at = arguments.index("image")

    assert ["/poiesis/bin/helper", *arguments[at + 1 :]] == container["command"]
    assert options(arguments, "--entrypoint") == container["command"][:1]
    assert dict(one.split("=", 1) for one in options(arguments, "--env")) == {
        one["name"]: one["value"] for one in container["env"]
    }
    mounted = [one.split(":", 1)[1] for one in options(arguments, "--volume")]
    assert sorted(mounted) == sorted(
        one["mountPath"] + (":ro" if one.get("readOnly") else "") for one in container["volumeMounts"]
    )
    context = container["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == options(arguments, "--user")[0] == USER
    assert context["readOnlyRootFilesystem"] is ("--read-only" in arguments) is True
    assert context["capabilities"]["drop"] == options(arguments, "--cap-drop") == ["ALL"]
    assert context["allowPrivilegeEscalation"] is False
    assert options(arguments, "--security-opt") == ["no-new-privileges"]
