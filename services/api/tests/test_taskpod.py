"""Manifests as whole values."""

import base64
import json
import re
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.config import Document
from poiesis_api.taskpod import NoFiler, RecorderPostgres, Task, owned_by, task_objects
from poiesis_api.taskpod.containers import cpu_limit, executor_command, executor_container
from poiesis_api.taskpod.layout import layout_of
from poiesis_api.taskpod.manifest import escape_dollars
from poiesis_api.taskpod.objects import pod_template
from poiesis_api.taskpod.secrets import pack_secrets, secret_entries, secret_of_key
from poiesis_api.taskpod.volumes import gb_to_bytes
from poiesis_e2e.install import merged
from poiesis_models.plan import PodPlan
from poiesis_models.tes import TesTaskRequest
from poiesis_models.worklist import InputItem, WorkList

ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
NAME = f"poiesis-{ID}"
NONCE = "0123456789abcdef"
SECRET = f"{NAME}-{NONCE}"
LABELS = {
    "poiesis.io/task": str(ID),
    "app.kubernetes.io/managed-by": "poiesis",
    "app.kubernetes.io/component": "taskpod",
}
KEEP = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
BASELINE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["NET_RAW", "MKNOD", "AUDIT_WRITE"]},
}
ROOT_DISK = str(20_000_000_000 + 2**30 + 6 * 65536)
TREC_IMAGE = "ghcr.io/jaeaeich/poiesis-trec:0.2.0"
HELPER_IMAGE = "ghcr.io/jaeaeich/poiesis-helper:0.2.0"
EXECUTOR = {"image": "busybox", "command": ["true"]}
RUN = ["/poiesis/bin/helper", "run", "--run", "/poiesis/run"]
RUN += ["--log-bytes", "65536", "--grace", "30", "--ack", "/poiesis/ack/done", "--ack-timeout", "120"]
READS = {"path": "/in/reads.bam", "url": "s3://lab/reads.bam", "type": "FILE", "streamable": True}
STREAM = ["python3", "-m", "poiesis_tif.stream"]
INSTALL = ["/helper", "install", "--bin", "/poiesis/bin", "--paths", "/poiesis/recorder/paths"]
VOLUME = ["--paths", "/poiesis/bin/paths", "--volume", "/poiesis/collect"]
COLLECT = {"name": "task", "mountPath": "/poiesis/collect", "subPath": "root"}


def task(*, credentials=(), **fields):
    request = TesTaskRequest.model_validate({"executors": [EXECUTOR], **fields})
    return Task(
        id=ID,
        request=request,
        nonce=NONCE,
        recorder_token="token",
        credentials=frozenset(credentials),
        gateway_ca="authority",
        postgres=RecorderPostgres(dsn="postgresql://db", ca="PEM"),
    )


def change(config, **sections):
    """The configuration with some keys of some sections set."""
    return Document.model_validate(merged(config.model_dump(by_alias=True), sections))


def container(objects, name):
    spec = objects.job["spec"]["template"]["spec"]
    return next(one for one in spec["initContainers"] + spec["containers"] if one["name"] == name)


def names(objects):
    spec = objects.job["spec"]["template"]["spec"]
    return [one["name"] for one in spec["initContainers"] + spec["containers"]]


def volume(objects, name):
    volumes = objects.job["spec"]["template"]["spec"]["volumes"]
    return next((one for one in volumes if one["name"] == name), None)


def secret_text(secret, key):
    return base64.b64decode(secret["data"][key]).decode()


def run_mounts(name):
    return [
        {"name": "bin", "mountPath": "/poiesis/bin", "readOnly": True},
        {"name": "run", "mountPath": "/poiesis/run", "subPath": name},
        {"name": "ack", "mountPath": "/poiesis/ack", "readOnly": True},
    ]


def path_list(objects):
    """The helper's list of paths, put together from the Secrets: one entry each."""
    entries = {
        key: value for one in objects.owned if one["kind"] == "Secret" for key, value in one["data"].items()
    }
    whole = b"".join(base64.b64decode(entries[key]) for key in sorted(entries) if key.startswith("paths-"))
    return whole.decode().split("\0")[:-1]


def test_smallest_task_has_job_service_account_and_secret(config):
    objects = task_objects(task(), config)
    plan = PodPlan(executors=("executor-0",), ignore_error=(False,), upload_on_error=False).to_json()
    from_pod = {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
    }
    recorder = {
        "name": "trec",
        "image": TREC_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": [
            {"name": "POIESIS_TASK_ID", "value": str(ID)},
            {"name": "POIESIS_PLAN", "value": plan},
            *(
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in from_pod.items()
            ),
            {"name": "POIESIS_INSTALL", "value": json.dumps(INSTALL)},
            {"name": "POIESIS_LOG_BYTES", "value": "65536"},
            {"name": "POIESIS_GRACE_SECONDS", "value": "30"},
            {"name": "POIESIS_GATEWAY_URL", "value": "https://poiesis-gateway.tes.svc:8443"},
        ],
        "lifecycle": {"postStart": {"exec": {"command": INSTALL}}},
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "bin", "mountPath": "/poiesis/bin"},
            {"name": "run", "mountPath": "/poiesis/runs"},
            {"name": "ack", "mountPath": "/poiesis/ack"},
            {"name": "recorder", "mountPath": "/poiesis/recorder", "readOnly": True},
        ],
    }
    executor = {
        "name": "executor-0",
        "image": "busybox",
        "command": [*RUN, "--on-failure", "exit", "--", "true"],
        "env": [],
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "0"},
            "limits": {"memory": "2Gi", "ephemeral-storage": ROOT_DISK},
        },
        "securityContext": BASELINE,
        "volumeMounts": run_mounts("executor-0"),
    }
    pause = {
        "name": "pause",
        "image": HELPER_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/helper", "wait", "--ack", "/poiesis/ack/done", "--timeout", "600"],
        "resources": {
            "requests": {"cpu": "10m", "memory": "8Mi"},
            "limits": {"cpu": "100m", "memory": "16Mi"},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "ack", "mountPath": "/poiesis/ack", "readOnly": True}],
    }
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "kubernetes/ca.crt"}]}
    namespace = {"path": "kubernetes/namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    recorder_sources = [
        {
            "secret": {
                "name": SECRET,
                "items": [
                    {"key": "token", "path": "token"},
                    {"key": "gateway-ca", "path": "gateway-ca.crt"},
                    {"key": "paths-0000", "path": "paths/paths-0000"},
                ],
            }
        },
        {"serviceAccountToken": {"path": "kubernetes/token", "expirationSeconds": 3600}},
        {"configMap": ca},
        {"downwardAPI": {"items": [namespace]}},
    ]
    assert objects.job == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "labels": {**LABELS, "poiesis.io/nonce": NONCE}},
        "spec": {
            "suspend": True,
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": 600,
            "template": {
                "metadata": {"labels": LABELS, "annotations": {**KEEP, "poiesis.io/plan": plan}},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "fsGroup": 65532,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "initContainers": [recorder, executor],
                    "containers": [pause],
                    "volumes": [
                        {"name": "bin", "emptyDir": {}},
                        {"name": "run", "emptyDir": {"sizeLimit": str(2**30 + 2 * 3 * 65536)}},
                        {"name": "ack", "emptyDir": {}},
                        {"name": "recorder", "projected": {"sources": recorder_sources}},
                    ],
                    "activeDeadlineSeconds": 604800,
                },
            },
        },
    }
    assert objects.owned == (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "labels": LABELS},
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "labels": LABELS},
            "type": "Opaque",
            "immutable": True,
            "data": {
                "token": base64.b64encode(b"token").decode(),
                "gateway-ca": base64.b64encode(b"authority").decode(),
                "paths-0000": base64.b64encode(b"m/poiesis/runs/executor-0\0").decode(),
            },
        },
    )


def test_inputs_and_outputs_add_filers_and_a_volume(config):
    objects = task_objects(
        task(
            inputs=[
                {"path": "/data/a", "url": "s3://b/a"},
                {"path": "/data/s", "content": "x", "type": "FILE"},
            ],
            outputs=[{"path": "/out/*.txt", "path_prefix": "/out", "url": "s3://b/o"}],
        ),
        config,
    )
    assert names(objects) == ["trec", "rescue-0", "tif-0", "prepare-0", "executor-0", "tof-0", "pause"]
    storage = {"secretRef": {"name": "poiesis-storage"}}
    assert container(objects, "tif-0") == {
        "name": "tif-0",
        "image": "ghcr.io/jaeaeich/poiesis-tif:0.2.0",
        "imagePullPolicy": "IfNotPresent",
        "command": [
            *RUN,
            "--rerun",
            "--retry-exit-code",
            "75",
            "--retry-attempts",
            "5",
            "--retry-killed",
            "--",
            "python3",
            "-m",
            "poiesis_tif",
        ],
        "env": [
            {"name": "POIESIS_RUN", "value": "/poiesis/run"},
            {"name": "POIESIS_WORK_LIST", "value": "/poiesis/spec/work.json"},
            {"name": "POIESIS_DISK_BYTES", "value": "10000000000"},
            {"name": "POIESIS_S3_ADDRESSING_STYLE", "value": "path"},
            {"name": "AWS_ENDPOINT_URL_S3", "value": "http://minio:9000"},
            {"name": "AWS_REGION", "value": "us-east-1"},
        ],
        "envFrom": [storage],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": [
            *run_mounts("tif-0"),
            {"name": "task", "mountPath": "/task"},
            {"name": "spec-tif-0", "mountPath": "/poiesis/spec", "readOnly": True},
        ],
    }
    assert volume(objects, "spec-tif-0")["projected"]["sources"] == [
        {
            "secret": {
                "name": SECRET,
                "items": [
                    {"key": "inputs-0.json", "path": "work.json"},
                    {"key": "content-1", "path": "content-1"},
                ],
            }
        }
    ]
    assert volume(objects, "task") == {"name": "task", "persistentVolumeClaim": {"claimName": NAME}}
    assert path_list(objects) == [
        "m/poiesis/runs/tif-0",
        "m/poiesis/runs/prepare-0",
        "m/poiesis/runs/executor-0",
        "m/poiesis/runs/tof-0",
        "m/poiesis/runs/rescue-0",
        "m/task/root",
        "m/task/root/data",
        "m/task/root/out",
        "m/task/filled",
        "s/data",
        "s/out",
        "f/data",
        "f/out",
        "w/out/*.txt",
    ]
    secret = objects.owned[1]
    assert sorted(secret["data"]) == [
        *("content-1", "gateway-ca", "inputs-0.json", "outputs-0.json", "paths-0000", "token")
    ]
    assert secret_text(secret, "content-1") == "x"
    assert json.loads(secret_text(secret, "inputs-0.json")) == {
        "version": 1,
        "task": str(ID),
        "inputs": [
            {"path": "/data/a", "local": "/task/root/data/a", "url": "s3://b/a"},
            {
                "path": "/data/s",
                "local": "/task/root/data/s",
                "type": "FILE",
                "content_file": "content-1",
            },
        ],
        "outputs": [],
    }
    assert json.loads(secret_text(secret, "outputs-0.json"))["outputs"] == [
        {
            "url": "s3://b/o",
            "path": "/out/*.txt",
            "local": "/task/root/out/*.txt",
            "wildcard": True,
            "path_prefix": "/out",
        }
    ]
    claim = objects.owned[2]
    assert (claim["kind"], claim["spec"]) == (
        "PersistentVolumeClaim",
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10000000000"}}},
    )
    assert container(objects, "executor-0")["volumeMounts"] == [
        *run_mounts("executor-0"),
        {"name": "task", "mountPath": "/data", "subPath": "root/data"},
        {"name": "task", "mountPath": "/out", "subPath": "root/out"},
        COLLECT,
    ]
    fill = ["fill", *VOLUME[:2], "--to", "/poiesis/collect", "--record", "/poiesis/filled"]
    assert container(objects, "prepare-0") == {
        "name": "prepare-0",
        "image": "busybox",
        "command": [
            *(*RUN, "--rerun", "--", "/poiesis/bin/helper", *fill),
            *("--progress", "/poiesis/run/progress.jsonl"),
        ],
        "resources": container(objects, "tif-0")["resources"],
        "securityContext": container(objects, "executor-0")["securityContext"],
        "volumeMounts": [
            *run_mounts("prepare-0"),
            COLLECT,
            {"name": "task", "mountPath": "/poiesis/filled", "subPath": "filled"},
        ],
    }


def test_directories_are_filled_for_each_new_image(config):
    other = {**EXECUTOR, "image": "alpine"}
    executors = [EXECUTOR, EXECUTOR, other, EXECUTOR]
    filled = task_objects(task(executors=executors, outputs=[OUTPUT]), config)
    assert names(filled) == [
        *("trec", "rescue-0", "prepare-0", "executor-0", "executor-1", "prepare-2", "executor-2"),
        *("prepare-3", "executor-3", "tof-0", "pause"),
    ]
    previous = {"name": "run", "mountPath": "/poiesis/previous", "subPath": "executor-1", "readOnly": True}
    assert previous in container(filled, "prepare-2")["volumeMounts"]
    assert container(filled, "prepare-2")["command"][len(RUN) :][:2] == ["--after", "/poiesis/previous"]
    named = task_objects(task(executors=executors, outputs=[OUTPUT], volumes=["/o"]), config)
    assert names(named) == [
        *("trec", "rescue-0", *(f"executor-{index}" for index in range(4)), "tof-0", "pause")
    ]


def test_a_working_directory_alone_needs_no_claim(config):
    objects = task_objects(task(executors=[{**EXECUTOR, "workdir": "/scratch/job"}]), config)
    assert [one["kind"] for one in objects.owned] == ["ServiceAccount", "Secret"]
    assert volume(objects, "task") == {"name": "task", "emptyDir": {"sizeLimit": "10000000000"}}
    mount = {"name": "task", "mountPath": "/scratch/job", "subPath": "root/scratch/job"}
    assert mount in container(objects, "executor-0")["volumeMounts"]
    assert "m/task/root/scratch/job" in path_list(objects)


def test_containers_do_not_grow_with_the_task(config):
    """1200 inputs in directories of their own, and a list that no one Secret holds."""
    inputs = [
        {"path": f"/cromwell/{'x' * 200}/inputs/{i:010}/s.vcf.gz", "url": "s3://b/x"} for i in range(1200)
    ]
    outputs = [{"path": f"/o/{'y' * 200}/{i}/{'z' * 200}/a", "url": "s3://b/x"} for i in range(2000)]
    objects = task_objects(task(executors=[EXECUTOR] * 3, inputs=inputs, outputs=outputs), config)
    sizes = [len(json.dumps(container(objects, name))) for name in names(objects)]
    assert max(sizes) < 12_000
    assert len(container(objects, "executor-0")["volumeMounts"]) < 10
    entries = path_list(objects)
    assert len(entries) == len(set(entries))
    assert len([entry for entry in entries if entry[0] == "o"]) == 2000
    sources = volume(objects, "recorder")["projected"]["sources"]
    parts = [item["path"] for one in sources for item in one.get("secret", {}).get("items", ())]
    assert [part for part in parts if part.startswith("paths/")] == [f"paths/paths-{i:04}" for i in range(5)]


def test_the_job_grows_linearly_with_executors(config):
    def size(count):
        fields = {"executors": [EXECUTOR] * count, "outputs": [OUTPUT]}
        return len(json.dumps(task_objects(task(**fields), config).job))

    assert size(300) - size(200) < 1.05 * (size(200) - size(100))
    assert size(300) < 400_000


def test_pod_annotation_and_recorder_have_the_same_plan(config):
    executors = [EXECUTOR, {**EXECUTOR, "ignore_error": True}]
    outputs = [{"path": "/o/a", "url": "s3://b/a"}]
    objects = task_objects(
        task(executors=executors, outputs=outputs, resources={"preemptible": True}), config
    )
    annotation = objects.job["spec"]["template"]["metadata"]["annotations"]["poiesis.io/plan"]
    assert PodPlan.from_json(annotation) == PodPlan(
        executors=("executor-0", "executor-1"),
        ignore_error=(False, True),
        prepared=(0,),
        outputs=("tof-0",),
        rescues=("rescue-0",),
        upload_on_error=True,
        preemptible=True,
    )


def command(config, index=0, **fields):
    layout = layout_of(task(**fields), config)
    argv = executor_command(index, layout, config)
    assert argv[: len(RUN)] == RUN
    return argv[len(RUN) :]


OUTPUT = {"path": "/o/a", "url": "s3://b/a"}
THREE = [EXECUTOR, {**EXECUTOR, "ignore_error": True}, EXECUTOR]


def test_later_executors_check_earlier_ones_before_upload(config):
    volume = [*VOLUME, "--keep-modes"]
    assert command(config, 0, executors=THREE, outputs=[OUTPUT]) == [
        *(*volume, "--on-failure", "continue", "--", "true")
    ]
    after = ["--after", "/poiesis/previous"]
    assert command(config, 1, executors=THREE, outputs=[OUTPUT]) == [
        *(*after, *volume, "--on-failure", "continue", "--ignore-error", "--", "true")
    ]
    assert command(config, 2, executors=THREE, outputs=[OUTPUT]) == [
        *(*after, *VOLUME, "--on-failure", "continue", "--", "true")
    ]


def test_modes_are_opened_before_another_image(config):
    executors = [EXECUTOR, {**EXECUTOR, "image": "alpine"}]
    for index in (0, 1):
        assert "--keep-modes" not in command(config, index, executors=executors, volumes=["/w"])


@pytest.mark.parametrize("fields", [{}, {"outputs": [OUTPUT]}])
def test_otherwise_kubernetes_stops_at_the_first_failure(config, fields):
    skipping = change(config, executors={"onError": "skip"})
    assert "--after" not in command(skipping, 2, executors=THREE, **fields)
    assert "exit" in command(skipping, 2, executors=THREE, **fields)


def test_streams_are_named_as_the_task_names_them(config):
    executor = {**EXECUTOR, "stdin": "/i/a", "stdout": "/o$(X)", "stderr": "/o/e"}
    assert command(config, executors=[executor], outputs=[OUTPUT])[:-2] == [
        *("--stdin", "/i/a", "--stdout", "/o$$(X)", "--stderr", "/o/e"),
        *(*VOLUME, "--on-failure", "continue"),
    ]


def test_single_files_are_placed_by_the_helper(config):
    executors = [{**EXECUTOR, "stdout": "/step.txt"}, {**EXECUTOR, "stdin": "/step.txt"}]
    inputs, outputs = [{"path": "/etc/app.conf", "content": "x"}], [{"path": "/o\\[1\\]", "url": "s3://b/a"}]
    objects = task_objects(task(executors=executors, inputs=inputs, outputs=outputs), config)
    assert [entry for entry in path_list(objects) if entry[0] in "pso"] == [
        *("p/etc/app.conf", "p/o[1]", "p/step.txt", "o/o[1]")
    ]
    assert names(objects) == [*("trec", "rescue-0", "tif-0", "executor-0", "executor-1", "tof-0", "pause")]
    assert container(objects, "executor-0")["volumeMounts"] == [*run_mounts("executor-0"), COLLECT]


@pytest.mark.parametrize(
    "context", [{"runAsNonRoot": True}, {"runAsUser": 1000}, {"readOnlyRootFilesystem": True}]
)
def test_inputs_are_mounted_if_executors_cannot_place_them(config, context):
    changed = change(config, executors={"securityContext": context})
    objects = task_objects(task(inputs=[{"path": "/etc/app.conf", "content": "x"}]), changed)
    mount = {"name": "task", "mountPath": "/etc/app.conf", "subPath": "root/etc/app.conf"}
    assert mount in container(objects, "executor-0")["volumeMounts"]
    assert [entry for entry in path_list(objects) if entry[0] == "p"] == []


def test_an_executor_as_tes_gives_it(config):
    executor = {
        "image": "busybox",
        "command": ["sh", "-c", "echo $(HOME) $$ $X"],
        "workdir": "/usr/src/w",
        "env": {"A": "$(B)", "C": "$"},
    }
    resources = {"cpu_cores": 3, "ram_gb": 0.186}
    layout = layout_of(task(executors=[executor], resources=resources), config)
    memory = {"memory": "186000000"}
    assert executor_container(0, layout, config) == {
        "name": "executor-0",
        "image": "busybox",
        "command": [*RUN, "--on-failure", "exit", "--", "sh", "-c", "echo $$(HOME) $$$$ $$X"],
        "workingDir": "/usr/src/w",
        "env": [{"name": "A", "value": "$$(B)"}, {"name": "C", "value": "$$"}],
        "resources": {
            "requests": {"cpu": "3", **memory, "ephemeral-storage": "0"},
            "limits": {**memory, "ephemeral-storage": ROOT_DISK},
        },
        "securityContext": BASELINE,
        "volumeMounts": run_mounts("executor-0"),
    }


def expand(text):
    """As third_party/forked/golang/expansion of Kubernetes does without any variable."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda match: "$" if match[1] == "$" else match[0], text)


@given(st.text(alphabet="$()aX ", max_size=20))
def test_kubernetes_leaves_exactly_the_text(text):
    assert expand(escape_dollars(text)) == text


def test_executors_have_the_configured_security_context(config):
    context = {"runAsUser": 1000, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    fixed = change(config, executors={"securityContext": context, "imagePullPolicy": "Never"})
    executor = container(task_objects(task(), fixed), "executor-0")
    assert executor["securityContext"] == {"allowPrivilegeEscalation": False, **context}
    assert executor["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("configured", "capabilities"),
    [
        ({}, {"drop": ["NET_RAW", "MKNOD", "AUDIT_WRITE"]}),
        ({"capabilities": None}, {"drop": ["NET_RAW", "MKNOD", "AUDIT_WRITE"]}),
        ({"capabilities": {"drop": ["MKNOD"]}}, {"drop": ["MKNOD", "NET_RAW", "AUDIT_WRITE"]}),
        ({"capabilities": {"drop": ["ALL"]}}, {"drop": ["ALL"]}),
        ({"capabilities": {"drop": ["all"]}}, {"drop": ["all"]}),
        ({"capabilities": {"add": ["ALL"]}}, {"add": ["ALL"], "drop": ["NET_RAW", "MKNOD", "AUDIT_WRITE"]}),
        (
            {"capabilities": {"add": ["CAP_MKNOD"], "drop": None}},
            {"add": ["CAP_MKNOD"], "drop": ["NET_RAW", "AUDIT_WRITE"]},
        ),
    ],
)
def test_executors_drop_capabilities_that_tasks_do_not_need(config, configured, capabilities):
    changed = change(config, executors={"securityContext": configured})
    objects = task_objects(task(outputs=[OUTPUT]), changed)
    for name in ("prepare-0", "executor-0"):
        assert container(objects, name)["securityContext"]["capabilities"] == capabilities


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, {"capabilities": {"drop": ["ALL"]}}),
        (
            {"runAsUser": 1000, "readOnlyRootFilesystem": True},
            {"runAsUser": 1000, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        ),
        (
            {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["CHOWN"]}},
            {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["CHOWN", "ALL"]}},
        ),
    ],
)
def test_restricted_profile_is_that_of_pod_security(config, configured, expected):
    changed = change(config, executors={"profile": "restricted", "securityContext": configured})
    objects = task_objects(task(outputs=[OUTPUT]), changed)
    for name in ("prepare-0", "executor-0"):
        assert container(objects, name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **expected,
        }


def test_restricted_executors_cannot_place_files(config):
    changed = change(config, executors={"profile": "restricted"})
    objects = task_objects(task(inputs=[{"path": "/etc/app.conf", "content": "x"}]), changed)
    assert [entry for entry in path_list(objects) if entry[0] == "p"] == []


@pytest.mark.parametrize("host_users", [True, False])
def test_user_namespace_is_asked_for_only_if_configured(config, host_users):
    assert "hostUsers" not in task_objects(task(), config).job["spec"]["template"]["spec"]
    changed = change(config, pod={"hostUsers": host_users})
    assert task_objects(task(), changed).job["spec"]["template"]["spec"]["hostUsers"] is host_users


def test_wall_time_is_limited_by_default(config):
    spec = task_objects(task(), config).job["spec"]["template"]["spec"]
    assert spec["activeDeadlineSeconds"] == 7 * 24 * 3600
    lifted = change(config, pod={"activeDeadlineSeconds": 0})
    assert "activeDeadlineSeconds" not in task_objects(task(), lifted).job["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("own", "executors", "names_", "policy"),
    [
        ([], {}, None, None),
        (["own"], {}, ["own"], "Always"),
        (["own"], {"imagePullSecrets": []}, None, None),
        (["own"], {"imagePullSecrets": ["labs"]}, ["labs"], "Always"),
        (["own"], {"imagePullPolicy": "IfNotPresent"}, ["own"], "IfNotPresent"),
        ([], {"imagePullPolicy": "Never"}, None, "Never"),
    ],
)
def test_cached_private_image_needs_credentials_again(config, own, executors, names_, policy):
    changed = change(config, images={"pullSecrets": own}, executors=executors)
    objects = task_objects(task(outputs=[OUTPUT]), changed)
    spec = objects.job["spec"]["template"]["spec"]
    assert [one["name"] for one in spec.get("imagePullSecrets", ())] == (names_ or [])
    assert [
        container(objects, name).get("imagePullPolicy") for name in ("prepare-0", "executor-0", "trec")
    ] == [policy, policy, "IfNotPresent"]


def recorder_files(objects):
    """Secret and key of each file below /poiesis/recorder."""
    return {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in volume(objects, "recorder")["projected"]["sources"]
        if "secret" in source
        for item in source["secret"]["items"]
    }


def test_gateway_recorder_has_no_access_to_postgres(config):
    objects = task_objects(task(), change(config, recorderPostgres={"caFile": "/etc/ca.crt"}))
    assert recorder_files(objects) == {
        "token": (SECRET, "token"),
        "gateway-ca.crt": (SECRET, "gateway-ca"),
        "paths/paths-0000": (SECRET, "paths-0000"),
    }
    assert "PGSSLROOTCERT" not in {one["name"] for one in container(objects, "trec")["env"]}


def test_postgres_recorder_has_dsn_and_authority(config):
    files = {"caFile": "/etc/ca.crt"}
    objects = task_objects(task(), change(config, recorder={"transport": "postgres"}, recorderPostgres=files))
    assert recorder_files(objects) == {
        "token": (SECRET, "token"),
        "paths/paths-0000": (SECRET, "paths-0000"),
        "dsn": (SECRET, "recorder-dsn"),
        "postgres-ca.crt": (SECRET, "postgres-ca"),
    }
    (stored,) = (one for one in objects.owned if one["kind"] == "Secret")
    assert secret_text(stored, "postgres-ca") == "PEM"
    assert secret_text(stored, "recorder-dsn") == "postgresql://db"
    env = {one["name"]: one.get("value") for one in container(objects, "trec")["env"]}
    assert env["PGSSLROOTCERT"] == "/poiesis/recorder/postgres-ca.crt"
    assert "POIESIS_GATEWAY_URL" not in env


def test_public_certificate_of_postgres_needs_no_authority(config):
    public = replace(task(), postgres=RecorderPostgres(dsn="postgresql://db"))
    objects = task_objects(public, change(config, recorder={"transport": "postgres"}))
    assert "postgres-ca.crt" not in recorder_files(objects)
    assert "PGSSLROOTCERT" not in {one["name"] for one in container(objects, "trec")["env"]}


def test_every_container_has_requests_and_limits(config):
    objects = task_objects(
        task(inputs=[{"path": "/d/a", "content": "x"}], outputs=[{"path": "/o/a", "url": "s3://b/a"}]), config
    )
    for name in names(objects):
        resources = container(objects, name)["resources"]
        sides = {side: set(resources[side]) - {"ephemeral-storage"} for side in ("requests", "limits")}
        limited = {"memory"} if name == "executor-0" else {"cpu", "memory"}
        assert sides == {"requests": {"cpu", "memory"}, "limits": limited}


@pytest.mark.parametrize(
    ("limit", "request_", "expected"),
    [
        ("none", "500m", {}),
        ("request", "500m", {"cpu": "500m"}),
        (1, "500m", {"cpu": "500m"}),
        (4, "3", {"cpu": "12000m"}),
        (1.5, "0.1", {"cpu": "150m"}),
        (1.5, "5m", {"cpu": "8m"}),
        (1000, "256", {"cpu": "256000000m"}),
    ],
)
def test_cpu_limit_of_executors(limit, request_, expected):
    assert cpu_limit(request_, limit) == expected


def test_task_of_files_only_has_no_access_to_kubernetes(config):
    changed = change(config, recorder={"filesOnly": True})
    objects = task_objects(task(), changed)
    spec = objects.job["spec"]["template"]["spec"]
    assert [one["kind"] for one in objects.owned] == ["Secret"]
    assert "serviceAccountName" not in spec
    assert spec["automountServiceAccountToken"] is False
    assert [[*source] for source in volume(objects, "recorder")["projected"]["sources"]] == [["secret"]]
    plan = spec["initContainers"][0]["env"][1]["value"]
    assert PodPlan.from_json(plan).files_only
    assert spec["initContainers"][0] == with_plan(container(task_objects(task(), config), "trec"), plan)


def with_plan(recorder, plan):
    env = [
        {"name": "POIESIS_PLAN", "value": plan} if one["name"] == "POIESIS_PLAN" else one
        for one in recorder["env"]
    ]
    return {**recorder, "env": env}


def test_web_identity_needs_the_service_account_of_the_task(config):
    s3 = {"webIdentity": {"roleArn": "arn:aws:iam::1:role/tes"}}
    changed = change(config, recorder={"filesOnly": True}, storage={"s3": s3})
    objects = task_objects(task(), changed)
    assert [one["kind"] for one in objects.owned] == ["ServiceAccount", "Secret"]
    assert objects.job["spec"]["template"]["spec"]["serviceAccountName"] == NAME


@pytest.mark.parametrize(("limit", "cpu"), [("request", "2"), (2, "4000m")])
def test_only_executors_have_the_configured_cpu_limit(config, limit, cpu):
    inputs = [{"path": "/d/a", "content": "x"}]
    asked = task(inputs=inputs, resources={"cpu_cores": 2})
    default = task_objects(asked, config)
    limited = task_objects(asked, change(config, executors={"cpuLimit": limit}))
    assert container(limited, "executor-0")["resources"]["limits"]["cpu"] == cpu
    for name in ("trec", "tif-0", "pause"):
        assert container(limited, name) == container(default, name)


def test_an_ephemeral_volume(config):
    ephemeral = change(config, volume={"type": "ephemeral", "storageClass": "fast"})
    objects = task_objects(task(resources={"disk_gb": 0.5}), ephemeral)
    assert [one["kind"] for one in objects.owned] == ["ServiceAccount", "Secret"]
    assert volume(objects, "task")["ephemeral"]["volumeClaimTemplate"] == {
        "metadata": {"labels": LABELS},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "500000000"}},
            "storageClassName": "fast",
        },
    }


def test_an_empty_dir_is_known_to_the_scheduler(config):
    objects = task_objects(task(volumes=["/s"]), change(config, volume={"type": "emptyDir"}))
    assert volume(objects, "task")["emptyDir"] == {"sizeLimit": "10000000000"}
    assert container(objects, "pause")["resources"]["requests"]["ephemeral-storage"] == "10000000000"


@pytest.mark.parametrize(
    ("volume_type", "size"),
    [
        pytest.param("pvc", 5_000_000_000 + 2**30 + 6 * 65536, id="with the run directories"),
        pytest.param("emptyDir", 15_000_000_000 + 2**30 + 6 * 65536, id="and a volume on the node"),
    ],
)
def test_what_executors_write_to_the_node_is_limited(config, volume_type, size):
    changed = change(config, volume={"type": volume_type}, executors={"rootDiskGb": 5})
    resources = container(task_objects(task(volumes=["/s"]), changed), "executor-0")["resources"]
    assert resources["limits"]["ephemeral-storage"] == str(size)
    assert resources["requests"]["ephemeral-storage"] == "0"  # a bound, not a reservation


def test_root_disk_of_queued_tasks_has_no_default_limit(config):
    def limits(**executors: float) -> set[str]:
        objects = task_objects(
            task(),
            change(
                config, queue={"kueueQueueName": "batch"}, volume={"type": "ephemeral"}, executors=executors
            ),
        )
        return set(container(objects, "executor-0")["resources"]["limits"])

    assert "ephemeral-storage" not in limits()
    assert "ephemeral-storage" in limits(rootDiskGb=20)


def test_limit_of_the_node_disk_can_be_lifted(config):
    lifted = change(config, executors={"rootDiskGb": 0})
    resources = container(task_objects(task(volumes=["/s"]), lifted), "executor-0")["resources"]
    assert set(resources["limits"]) == {"memory"}


def test_filer_environment_has_volume_size_and_http_rules(config):
    places = {"allow": ["10.20.0.0/16", "files.example.org"], "deny": ["131.1.0.0/16"]}
    changed = change(config, storage={"s3": {"outputKeys": "decoded"}, "http": places})
    inputs = [{"path": "/data/a", "url": "https://files.example.org/a"}]
    filer = container(task_objects(task(inputs=inputs, resources={"disk_gb": 0.5}), changed), "tif-0")
    env = {entry["name"]: entry["value"] for entry in filer["env"]}
    assert env["POIESIS_DISK_BYTES"] == "500000000"
    assert env["POIESIS_HTTP_ALLOW"] == "10.20.0.0/16 files.example.org"
    assert env["POIESIS_HTTP_DENY"] == "131.1.0.0/16"
    assert env["POIESIS_S3_OUTPUT_KEYS"] == "decoded"


def test_settings_of_the_cluster_reach_the_pod(config):
    pod = {
        "labels": {"team": "a", "poiesis.io/task": "never"},
        "annotations": {"note": "b"},
        "nodeSelector": {"pool": "batch"},
        "tolerations": [{"key": "batch"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "low",
        "runtimeClassName": "gvisor",
        "activeDeadlineSeconds": 3600,
    }
    images = {"pullSecrets": ["registry"]}
    storage = {"s3": {"caSecret": {"name": "ca", "key": "tls.crt"}, "secretName": None}}
    changed = change(config, pod=pod, images=images, storage=storage)
    objects = task_objects(task(inputs=[{"path": "/d/a", "content": "x"}]), changed)
    template = objects.job["spec"]["template"]
    assert template["metadata"]["labels"] == {**LABELS, "team": "a"}
    assert template["metadata"]["annotations"]["note"] == "b"
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName"):
        assert template["spec"][key] == pod[key]
    assert template["spec"]["activeDeadlineSeconds"] == 3600
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    filer = container(objects, "tif-0")
    assert "envFrom" not in filer
    assert {"name": "AWS_CA_BUNDLE", "value": "/poiesis/storage-ca/ca.crt"} in filer["env"]
    assert filer["volumeMounts"][-1]["mountPath"] == "/poiesis/storage-ca"
    assert volume(objects, "storage-ca")["secret"] == {
        "secretName": "ca",
        "optional": True,
        "items": [{"key": "tls.crt", "path": "ca.crt"}],
    }


WITH_CREDENTIALS = {
    "inputs": [{"path": "/d/a", "url": "s3://lab-a/x"}, {"path": "/d/p", "url": "s3://public-data/y"}],
    "outputs": [{"path": "/o/a", "url": "s3://shared/lab-a/z"}],
}


def test_only_filers_get_the_credentials_they_need(config):
    objects = task_objects(task(credentials=["lab-a", "public", "gone"], **WITH_CREDENTIALS), config)
    lab_a = {
        "name": "lab-a",
        "urls": ["s3://lab-a", "s3://shared/lab-a/"],
        "secret": "lab-a-keys",
        "directory": "/poiesis/credentials/lab-a",
        "anonymous": False,
    }
    public = {
        "name": "public",
        "urls": ["s3://public-data"],
        "anonymous": True,
        "requester_pays": False,
        "endpoint": "https://s3.eu-central-1.amazonaws.com",
        "region": "eu-central-1",
        "addressing_style": "virtual",
        "ca_file": "/poiesis/credentials/public/ca.crt",
    }
    assert {name: told_of(objects, name) for name in ("tif-0", "tof-0")} == {
        "tif-0": [lab_a, public],
        "tof-0": [lab_a],
    }
    mounted = {
        name: {
            mount["name"]: (mount["mountPath"], mount["readOnly"])
            for mount in container(objects, name)["volumeMounts"]
            if mount["name"].startswith("credentials-")
        }
        for name in names(objects)
    }
    of_lab_a = ("/poiesis/credentials/lab-a", True)
    assert {name: mounts for name, mounts in mounted.items() if mounts} == {
        "tif-0": {
            "credentials-lab-a": of_lab_a,
            "credentials-public": ("/poiesis/credentials/public", True),
        },
        "rescue-0": {"credentials-lab-a": of_lab_a},
        "tof-0": {"credentials-lab-a": of_lab_a},
    }
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    secret = {
        "name": "lab-a-keys",
        "items": [{"key": key, "path": key} for key in keys],
        "optional": True,
    }
    assert volume(objects, "credentials-lab-a")["projected"] == {"sources": [{"secret": secret}]}
    ca = {"name": "public-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": True}
    assert volume(objects, "credentials-public")["projected"] == {"sources": [{"secret": ca}]}


@pytest.mark.parametrize("names", [[], ["gone"], ["public"]])
def test_ungranted_and_removed_credentials_are_ignored(config, names):
    inputs = [{"path": "/d/a", "url": "s3://lab-a/x"}]
    objects = task_objects(task(credentials=names, inputs=inputs), config)
    assert told_of(objects, "tif-0") is None
    assert "credentials-" not in json.dumps(objects.job)


def test_only_object_storage_filers_have_web_identity(config):
    side = {"schemes": ["drs"], "image": "drs", "command": ["drs"]}
    drs = {"name": "drs", "inputs": side, "objectStorage": False}
    filers = [config.filers[0].model_dump(by_alias=True), drs]
    role = {"roleArn": "arn:aws:iam::1:role/tes", "stsEndpoint": "https://sts.example.org"}
    changed = change(config, filers=filers, storage={"s3": {"webIdentity": role}})
    urls = {"/d/a": "s3://b/x", "/d/b": "drs://h/x"}
    inputs = [{"path": path, "url": url} for path, url in urls.items()]
    objects = task_objects(task(inputs=inputs, outputs=[{"path": "/o", "url": "s3://b/o"}]), changed)

    token = {"audience": "sts.amazonaws.com", "path": "token", "expirationSeconds": 3600}
    assert volume(objects, "web-identity")["projected"] == {"sources": [{"serviceAccountToken": token}]}
    mount = {"name": "web-identity", "mountPath": "/poiesis/web-identity", "readOnly": True}
    with_mount = {name for name in names(objects) if mount in container(objects, name)["volumeMounts"]}
    assert with_mount == {"tif-0", "tof-0", "rescue-0"}
    env = {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/tes",
        "AWS_ROLE_SESSION_NAME": f"poiesis-{ID}",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/poiesis/web-identity/token",
        "AWS_ENDPOINT_URL_STS": "https://sts.example.org",
    }
    environments = {
        name: {one["name"]: one.get("value") for one in container(objects, name).get("env", ())}
        for name in names(objects)
    }
    assert {
        name for name, variables in environments.items() if env.items() <= variables.items()
    } == with_mount
    assert {name for name, variables in environments.items() if env.keys() & variables.keys()} == with_mount


def told_of(objects, name):
    env = {entry["name"]: entry["value"] for entry in container(objects, name)["env"]}
    return json.loads(env["POIESIS_S3_CREDENTIALS"]) if "POIESIS_S3_CREDENTIALS" in env else None


def test_kueue_knows_the_job_by_its_label(config):
    objects = task_objects(
        task(), change(config, queue={"kueueQueueName": "batch"}, volume={"type": "ephemeral"})
    )
    assert objects.job["metadata"]["labels"] == {
        **LABELS,
        "poiesis.io/nonce": NONCE,
        "kueue.x-k8s.io/queue-name": "batch",
    }


def test_items_are_grouped_by_filer(config):
    side = {"schemes": ["drs"], "image": "drs", "command": ["drs"]}
    filers = [config.filers[0].model_dump(by_alias=True), {"name": "drs", "inputs": side, "env": {"X": "$"}}]
    inputs = [
        {"path": "/d/0", "url": "drs://h/0"},
        {"path": "/d/1", "url": "s3://b/1"},
        {"path": "/d/2", "url": "DRS://h/2"},
        {"path": "/d/3", "content": "x"},
    ]
    changed = change(config, filers=filers)
    layout = layout_of(task(inputs=inputs), changed)
    assert [
        (run.name, run.side.image, [item.path for item in run.work_list.inputs]) for run in layout.inputs
    ] == [
        ("tif-0", "drs", ["/d/0", "/d/2"]),
        ("tif-1", "ghcr.io/jaeaeich/poiesis-tif:0.2.0", ["/d/1", "/d/3"]),
    ]
    objects = task_objects(task(inputs=inputs), changed)
    assert {"name": "X", "value": "$$"} in container(objects, "tif-0")["env"]


def test_only_the_filer_mounts_its_secret_and_volumes(config):
    side = {"schemes": ["file"], "image": "file", "command": ["file"]}
    claim, results = ({"persistentVolumeClaim": {"claimName": name}} for name in ("projects", "results"))
    filers = [
        config.filers[0].model_dump(by_alias=True),
        {
            "name": "file",
            "inputs": side,
            "outputs": side,
            "objectStorage": False,
            "secretName": "own",
            "sharedVolumes": [
                {"prefix": "/nfs/projects", "volume": claim},
                {"prefix": "/nfs/more", "volume": claim, "subPath": "more"},
                {"prefix": "/nfs/out", "volume": results, "writable": True},
                {"prefix": "/nfs/before", "volume": results},
            ],
        },
    ]
    request = task(
        inputs=[{"path": "/d/0", "url": "file:///nfs/projects/0"}, {"path": "/d/1", "url": "s3://b/1"}],
        outputs=[{"path": "/d/2", "url": "/nfs/out/2"}],
    )
    storage = {"s3": {"caSecret": {"name": "ca", "key": "tls.crt"}, "secretName": "storage"}}
    objects = task_objects(request, change(config, filers=filers, storage=storage))

    given = [
        {"name": "secret-1", "mountPath": "/poiesis/secret", "readOnly": True},
        {"name": "shared-0", "mountPath": "/poiesis/shared/nfs/projects", "readOnly": True},
        {"name": "shared-0", "mountPath": "/poiesis/shared/nfs/more", "subPath": "more", "readOnly": True},
        {"name": "shared-2", "mountPath": "/poiesis/shared/nfs/out"},
        {"name": "shared-2", "mountPath": "/poiesis/shared/nfs/before", "readOnly": True},
    ]
    for name in ("tif-0", "tof-0"):
        filer = container(objects, name)
        assert "envFrom" not in filer
        assert filer["volumeMounts"][-5:] == given
        assert [one["name"] for one in filer["env"]] == [
            *("POIESIS_RUN", "POIESIS_WORK_LIST", "POIESIS_DISK_BYTES", "POIESIS_SECRET", "POIESIS_SHARED")
        ]
        assert filer["env"][-2:] == [
            {"name": "POIESIS_SECRET", "value": "/poiesis/secret"},
            {
                "name": "POIESIS_SHARED",
                "value": '[{"prefix":"/nfs/projects","writable":false},'
                '{"prefix":"/nfs/more","writable":false},'
                '{"prefix":"/nfs/out","writable":true},{"prefix":"/nfs/before","writable":false}]',
            },
        ]
    for name in ("trec", "tif-1", "executor-0", "pause"):
        mounted = {mount["name"] for mount in container(objects, name)["volumeMounts"]}
        assert not mounted & {"secret-1", "shared-0", "shared-2"}
    assert volume(objects, "secret-1") == {
        "name": "secret-1",
        "secret": {"secretName": "own", "optional": True},
    }
    assert volume(objects, "shared-0")["persistentVolumeClaim"] == {"claimName": "projects", "readOnly": True}
    assert volume(objects, "shared-2") == {"name": "shared-2", **results}
    spec = objects.job["spec"]["template"]["spec"]
    assert len({one["name"] for one in spec["volumes"]}) == len(spec["volumes"])


def test_filer_without_object_storage_mounts_no_certificate(config):
    side = {"schemes": ["drs"], "image": "drs", "command": ["drs"]}
    changed = change(
        config,
        filers=[{"name": "drs", "inputs": side, "objectStorage": False}],
        storage={"s3": {"caSecret": {"name": "ca"}}},
    )
    objects = task_objects(task(inputs=[{"path": "/d/0", "url": "drs://h/0"}]), changed)
    assert volume(objects, "storage-ca") is None


def test_a_filer_that_is_not_configured_any_more(config):
    with pytest.raises(NoFiler):
        task_objects(task(inputs=[{"path": "/d/0", "url": "drs://h/0"}]), config)
    with pytest.raises(NoFiler):
        task_objects(task(outputs=[{"path": "/d/0", "url": "drs://h/0"}]), config)


def test_contents_are_spread_over_secrets(config):
    inputs = [{"path": f"/d/{number}", "content": "x" * 131072} for number in range(12)]
    objects = task_objects(task(inputs=inputs), config)
    secrets = {one["metadata"]["name"]: one for one in objects.owned if one["kind"] == "Secret"}
    assert list(secrets) == [SECRET, f"{SECRET}-content-0", f"{SECRET}-content-1"]
    for secret in secrets.values():
        assert sum(len(base64.b64decode(value)) for value in secret["data"].values()) <= 700 * 1024
    items = {
        item["path"]: secrets[source["secret"]["name"]]["data"][item["key"]]
        for source in volume(objects, "spec-tif-0")["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert sorted(items) == sorted(["work.json", *(f"content-{number}" for number in range(12))])


def test_very_long_work_list_is_split_over_containers(config):
    inputs = [{"path": f"/d/{number}", "url": "https://h/" + "x" * 1000} for number in range(1000)]
    layout = layout_of(task(inputs=inputs), config)
    assert [run.name for run in layout.inputs] == ["tif-0", "tif-1", "tif-2"]
    texts = [run.work_list.to_json() for run in layout.inputs]
    assert max(map(len, texts)) < 500 * 1024
    assert [item.path for text in texts for item in WorkList.from_json(text).inputs] == [
        one["path"] for one in inputs
    ]


def test_secrets_are_filled_in_order():
    packed = pack_secrets(task(), {"token": b"t", "a": bytes(600 * 1024), "b": bytes(200 * 1024), "c": b"c"})
    assert {name: list(entries) for name, entries in packed.items()} == {
        SECRET: ["token", "a"],
        f"{SECRET}-content-0": ["b", "c"],
    }


def test_owned_objects_name_their_job(config):
    owned = owned_by(task_objects(task(), config).owned[0], "uid")
    assert owned["metadata"] == {
        "name": NAME,
        "labels": LABELS,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": "uid"}],
    }


@pytest.mark.parametrize(
    ("gigabytes", "size"), [(1, 10**9), (0.1, 10**8), (0.186, 186_000_000), (1e-10, 1), (1.0737, 1073700000)]
)
def test_gigabytes_are_decimal_and_rounded_up(gigabytes, size):
    assert gb_to_bytes(gigabytes) == size


def test_manifests_are_json(config):
    objects = task_objects(task(inputs=[{"path": "/d/\u2603", "content": "\u2603"}]), config)
    for manifest in (objects.job, *objects.owned):
        assert json.loads(json.dumps(manifest)) == manifest
    layout = layout_of(task(), config)
    secrets = secret_of_key(pack_secrets(layout.task, secret_entries(layout, "gateway")))
    assert pod_template(layout, config, secrets)["spec"]["restartPolicy"] == "Never"


def test_the_token_is_not_shown():
    assert "token=" not in repr(task())


@pytest.mark.parametrize("volume_type", ["pvc", "ephemeral", "emptyDir"])
async def test_the_client_library_knows_every_field(config, volume_type):
    from kubernetes.aio.client import (
        ApiClient,
        Configuration,
        V1Job,
        V1PersistentVolumeClaim,
        V1Secret,
        V1ServiceAccount,
    )

    models = {
        "Job": V1Job,
        "PersistentVolumeClaim": V1PersistentVolumeClaim,
        "Secret": V1Secret,
        "ServiceAccount": V1ServiceAccount,
    }
    executor = {**EXECUTOR, "workdir": "/w", "env": {"A": "b"}}
    outputs = [{"path": "/out", "url": "s3://lab-a/a"}]
    inputs = [{"path": "/etc/x", "content": "x"}]
    changed = change(config, volume={"type": volume_type}, storage={"s3": {"caSecret": {"name": "ca"}}})
    made = task(executors=[executor], inputs=inputs, outputs=outputs, credentials=["lab-a"])
    objects = task_objects(made, changed)
    serializer = ApiClient(Configuration())
    for manifest in (objects.job, *(owned_by(one, "uid") for one in objects.owned)):
        model = models[manifest["kind"]].from_dict(manifest)
        assert serializer.sanitize_for_serialization(model) == manifest


@pytest.fixture
def streaming(config) -> Document:
    """The chart with storage.streaming."""
    return change(config, storage={"streaming": True})


def test_without_the_chart_value_nothing_is_streamed(config):
    hinted, plain = (
        task_objects(task(inputs=[READS | {"streamable": hint}]), config) for hint in (True, None)
    )
    assert hinted == plain
    assert names(hinted) == ["trec", "tif-0", "prepare-0", "executor-0", "pause"]


def test_streaming_sidecar_starts_between_staging_and_executor(streaming):
    staged = {"path": "/in/ref.fa", "url": "s3://lab/ref.fa"}
    objects = task_objects(task(inputs=[READS, staged]), streaming)
    assert names(objects) == ["trec", "tif-0", "stream-0", "prepare-0", "executor-0", "pause"]
    tif, stream = container(objects, "tif-0"), container(objects, "stream-0")
    script = tif["command"].index("--") + 1
    assert stream == {
        **tif,
        "name": "stream-0",
        "restartPolicy": "Always",
        "command": [*tif["command"][:script], *STREAM],
        "volumeMounts": [
            *run_mounts("stream-0"),
            {"name": "task", "mountPath": "/task"},
            {"name": "spec-stream-0", "mountPath": "/poiesis/spec", "readOnly": True},
            *tif["volumeMounts"][len(run_mounts("tif-0")) + 2 :],
        ],
    }


def test_streaming_filer_has_own_work_list_and_fifo(streaming):
    staged = {"path": "/in/ref.fa", "url": "s3://lab/ref.fa"}
    objects = task_objects(task(inputs=[READS, staged]), streaming)
    secret = next(one for one in objects.owned if one["kind"] == "Secret")
    work = {
        key: WorkList.from_json(secret_text(secret, key)).inputs
        for key in ("inputs-0.json", "streams-0.json")
    }
    assert work == {
        "inputs-0.json": (InputItem(path="/in/ref.fa", local="/task/root/in/ref.fa", url="s3://lab/ref.fa"),),
        "streams-0.json": (
            InputItem(
                path="/in/reads.bam", local="/task/root/in/reads.bam", type="FILE", url="s3://lab/reads.bam"
            ),
        ),
    }
    assert {"q/task/root/in/reads.bam", "m/poiesis/runs/stream-0"} < set(path_list(objects))
    (plan,) = (one["value"] for one in container(objects, "trec")["env"] if one["name"] == "POIESIS_PLAN")
    assert PodPlan.from_json(plan).streams == ("stream-0",)


def test_only_streamed_input_needs_no_staging_filer(streaming):
    objects = task_objects(task(inputs=[READS], volumes=["/in"]), streaming)
    assert names(objects) == ["trec", "stream-0", "executor-0", "pause"]


def test_input_of_filer_without_streaming_is_staged(streaming):
    objects = task_objects(
        task(inputs=[READS]),
        change(
            streaming,
            filers=[
                {"name": "site", "inputs": {"schemes": ["s3"], "image": "site/s3", "command": ["/s3"]}},
                *streaming.model_dump(by_alias=True)["filers"],
            ],
        ),
    )
    assert names(objects) == ["trec", "tif-0", "prepare-0", "executor-0", "pause"]


def test_nested_inputs_of_different_filers_are_ordered(config):
    filers = [
        *config.model_dump(by_alias=True)["filers"],
        {"name": "site", "inputs": {"schemes": ["x"], "image": "site/x", "command": ["/x"]}},
    ]
    inputs = [
        {"path": "/a/b", "url": "s3://b/k"},
        {"path": "/c", "url": "s3://b/k"},
        {"path": "/a", "url": "x://k", "type": "DIRECTORY"},
    ]
    objects = task_objects(task(inputs=inputs), change(config, filers=filers))
    secret = next(one for one in objects.owned if one["kind"] == "Secret")
    staged = [
        [item.path for item in WorkList.from_json(secret_text(secret, f"inputs-{number}.json")).inputs]
        for number in range(3)
    ]
    assert staged == [["/c"], ["/a"], ["/a/b"]]
    together = task_objects(task(inputs=inputs[:2]), change(config, filers=filers))
    assert [name for name in names(together) if name.startswith("tif")] == ["tif-0"]
