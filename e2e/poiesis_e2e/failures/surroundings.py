"""Obstacles that a cluster's administrator or another user sets up before a task is created."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from poiesis_e2e.failures.case import Surroundings, World
from poiesis_e2e.install import SERVER_LABEL
from poiesis_e2e.kube import CommandError, Kube, Object
from poiesis_e2e.waiting import eventually
from poiesis_e2e.webhook import PROBE, admission, configuration, pod_spec, rule
from poiesis_lab import versions

QUOTA = "poiesis-e2e-quota"
_MARKED = ".?initContainers.orValue([]).exists(c, c.?command.orValue([]).exists(word, word == '<marker>'))"
REFUSED_BYTES = 123456789  # of a claim: no other task requests this size
MARKED_JOB = f"object.spec.template.spec{_MARKED}"
MARKED_POD = f"object.spec{_MARKED}"

Manifests = Callable[[World], Sequence[Object]]


def quota(**hard: str) -> Surroundings:
    """Create a ResourceQuota, such as `pods="0"`; `_` replaces characters that a name cannot have."""
    limits = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}

    def manifests(_: World) -> Sequence[Object]:
        return [_object("v1", "ResourceQuota", QUOTA, spec={"hard": limits})]

    async def counts(world: World) -> bool:
        found = await world.kube.get("resourcequota", QUOTA)
        return found is not None and "hard" in found.get("status", {})

    words = ", ".join(f"{name}={value}" for name, value in limits.items())
    return _present(f"ResourceQuota `{words}`", manifests, counts)


def limit_range(memory: str) -> Surroundings:
    """Create a LimitRange: the maximum memory per container."""

    def manifests(_: World) -> Sequence[Object]:
        limits = [{"type": "Container", "max": {"memory": memory}}]
        return [_object("v1", "LimitRange", QUOTA, spec={"limits": limits})]

    async def holds(world: World) -> bool:
        return await world.kube.get("limitrange", QUOTA) is not None

    return _present(f"LimitRange `max.memory={memory}`", manifests, holds)


def policy(kind: str, expression: str) -> Surroundings:
    """Create a ValidatingAdmissionPolicy on objects of the plural `kind` (with its group, if any).

    `expression`: CEL that is true for admitted objects; `<marker>` is replaced by the case's marker.
    """
    group, _, plural = kind.rpartition("/")

    def manifests(world: World) -> Sequence[Object]:
        spec = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule("CREATE", group, plural)]},
            "validations": [{"expression": _of(world, expression), "message": "not on this site"}],
        }
        api = f"admissionregistration.k8s.io/{versions.RELEASE.policies}"
        name = f"poiesis-e2e-{world.marker}"
        where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.kube.namespace}}}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": where}
        return [
            _object(api, "ValidatingAdmissionPolicy", name, spec=spec),
            _object(api, "ValidatingAdmissionPolicyBinding", name, spec=binding),
        ]

    async def holds(world: World) -> bool:
        return await _is_refused(world, _probe(plural, world), "not on this site")

    return _present(f"a ValidatingAdmissionPolicy does not admit its {plural}", manifests, holds)


def webhook_down() -> Surroundings:
    """Register a validating webhook whose server does not respond, for the case's own Job alone."""

    def manifests(world: World) -> Sequence[Object]:
        silent = configuration(
            "Validating",
            f"poiesis-e2e-{world.marker}.example.org",
            where={"url": "https://127.0.0.1:1/"},
            namespace=world.kube.namespace,
            rules=[rule("CREATE", "batch", "jobs")],
            condition=_of(world, MARKED_JOB),
            seconds=2,
        )
        return [silent]

    async def holds(world: World) -> bool:
        return await _is_refused(world, _probe("jobs", world), "failed calling webhook")

    return _present("an admission webhook for Jobs does not respond", manifests, holds)


def webhook_of_old(kind: str) -> Surroundings:
    """Register a mutating webhook that does not support native sidecars."""

    def strip(path: str, spec: Object) -> Sequence[Object]:
        return [
            {"op": "remove", "path": f"{path}/initContainers/{number}/restartPolicy"}
            for number, container in enumerate(spec["initContainers"])
            if "restartPolicy" in container
        ]

    return changed(f"an admission webhook drops `restartPolicy` of a {kind}'s init containers", kind, strip)


def container_with(words: str, name: str, field: str, value: object) -> Surroundings:
    """Replace a field (a JSON pointer below the container) of an init container of the Job."""

    def change(path: str, spec: Object) -> Sequence[Object]:
        names = [container["name"] for container in spec["initContainers"]]
        where = f"{path}/initContainers/{names.index(name)}{field}"
        return [{"op": "replace", "path": where, "value": value}]

    return changed(words, "Job", change)


def changed(words: str, kind: str, change: Callable[[str, Object], Sequence[Object]]) -> Surroundings:
    """Change the case's own Job, or its Pod, by a mutating webhook.

    `change`: from the Pod spec's JSON pointer and content to a JSON patch.
    """
    group, plural, marked = ("batch", "jobs", MARKED_JOB) if kind == "Job" else ("", "pods", MARKED_POD)
    held: dict[str, AsyncExitStack] = {}

    async def review(asked: Object) -> Sequence[Object]:
        return change(*pod_spec(asked["object"]))

    async def begin(world: World) -> None:
        stack = held[world.marker] = AsyncExitStack()
        hook = admission(
            world.kube,
            world.node,
            review,
            rules=[rule("CREATE", group, plural)],
            probe=_probe(plural, world),
            condition=_of(world, marked),
        )
        await stack.enter_async_context(hook)

    async def end(world: World) -> None:
        await held.pop(world.marker).aclose()

    return Surroundings(words=words, begin=begin, end=end)


def server(words: str, script: str, *, port: int = 80, on_node: bool = False) -> Surroundings:
    """Run a server that sends the output of a shell script on every connection.

    `on_node`: use a port of the tasks' node, which its kubelet reaches as localhost.
    """

    def manifests(world: World) -> Sequence[Object]:
        command = ["nc", "-ll", "-p", str(port), "-e", "sh", "-c", f"{script}; : {world.marker}"]
        container = {"name": "server", "image": world.images.busybox, "command": command}
        spec: Object = {"containers": [container], "terminationGracePeriodSeconds": 0}
        if on_node:
            spec |= {"hostNetwork": True, "nodeName": world.node.container}
        manifest = _object("v1", "Pod", server_name(world), spec=spec)
        manifest["metadata"]["labels"] = {SERVER_LABEL: "true"}
        return [manifest]

    async def runs(world: World) -> bool:
        pod = await world.services.get("pod", server_name(world))
        return pod is not None and pod["status"]["phase"] == "Running" and "podIP" in pod["status"]

    # Not in the tasks' namespace, whose Pod Security level forbids the node's network.
    return _present(words, manifests, runs, where=lambda world: world.services)


def server_name(world: World) -> str:
    """Return the name of the Pod of `server`."""
    return f"server-{world.marker}"


def without_secret(name: str) -> Surroundings:
    """Delete a Secret of the release."""
    kept: dict[str, str] = {}

    async def begin(world: World) -> None:
        kept[world.marker] = await world.kube.run("get", "secret", name, "-o", "json")
        await world.kube.run("delete", "secret", name)

    async def end(world: World) -> None:
        if world.marker in kept:
            manifest: Object = json.loads(kept.pop(world.marker))
            data = {"metadata": {"name": name}, "data": manifest["data"], "type": manifest["type"]}
            text = json.dumps({"apiVersion": "v1", "kind": "Secret", **data})
            await world.kube.run("apply", "-f", "-", input_text=text)

    return Surroundings(words=f"the Secret `{name}` is missing", begin=begin, end=end)


def tiny_volumes(size: int) -> Surroundings:
    """Create a volume of `size` bytes, for a claim of exactly that size: no other task's claim fits."""

    def manifests(world: World) -> Sequence[Object]:
        spec = {
            "capacity": {"storage": str(size)},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": _folder(world)},
        }
        return [_object("v1", "PersistentVolume", f"tiny-{world.marker}", spec=spec)]

    async def available(world: World) -> bool:
        volume = await world.kube.get("persistentvolume", f"tiny-{world.marker}")
        return volume is not None and volume.get("status", {}).get("phase") == "Available"

    present = _present(f"its volume has {size // 10**6} MB", manifests, available)

    async def begin(world: World) -> None:
        await world.node.run("mkdir", "-p", _folder(world))
        await world.node.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", _folder(world))
        await present.begin(world)

    async def end(world: World) -> None:
        await present.end(world)
        await world.node.run("umount", "--lazy", _folder(world))
        await world.node.run("rmdir", _folder(world))

    return Surroundings(words=present.words, begin=begin, end=end)


def _folder(world: World) -> str:
    return f"/var/lib/{world.marker}"


def no_volumes() -> Surroundings:
    """Set a default StorageClass without a provisioner."""
    name, mark = "poiesis-e2e-by-hand", "storageclass.kubernetes.io/is-default-class"

    def manifests(_: World) -> Sequence[Object]:
        by_hand = _object("storage.k8s.io/v1", "StorageClass", name)
        by_hand["metadata"]["annotations"] = {mark: "true"}
        fields = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate"}
        return [by_hand | fields]

    async def alone(world: World) -> bool:
        classes = await world.kube.find("storageclasses")
        marks = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in classes}
        return [found for found, marked in marks.items() if marked.get(mark) == "true"] == [name]

    present = _present("no provisioner for the default StorageClass", manifests, alone)

    async def begin(world: World) -> None:
        await world.kube.run("annotate", "storageclass", "standard", "--overwrite", f"{mark}=false")
        await present.begin(world)

    async def end(world: World) -> None:
        await present.end(world)
        await world.kube.run("annotate", "storageclass", "standard", "--overwrite", f"{mark}=true")

    return Surroundings(words=present.words, begin=begin, end=end)


def pod_security(level: str) -> Surroundings:
    """Enforce a Pod Security level that executors do not meet."""
    label = "pod-security.kubernetes.io/enforce"

    async def set_label(world: World, change: str) -> None:
        await world.kube.run("label", "namespace", world.kube.namespace, "--overwrite", change)

    return Surroundings(
        words=f"the namespace enforces Pod Security `{level}`",
        begin=lambda world: set_label(world, f"{label}={level}"),
        end=lambda world: set_label(world, f"{label}=baseline"),
    )


def full_queue() -> Surroundings:
    """Fill the queue's quota with another user's Job."""

    def manifests(world: World) -> Sequence[Object]:
        return [job_in_queue(world, "while :; do sleep 0.1; done")]

    async def admitted(world: World) -> bool:
        job = await world.kube.get("job", f"other-{world.marker}")
        return job is not None and bool(job.get("status", {}).get("active"))

    return _present("the queue's quota is used up", manifests, admitted)


def job_in_queue(world: World, script: str, **labels: str) -> Object:
    """Return a Job that takes the whole queue; `labels`: of Kueue."""
    container = {
        "name": "c",
        "image": world.images.busybox,
        "command": ["sh", "-c", script],
        "resources": {"requests": {"cpu": "200m"}},
    }
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    job = _object("batch/v1", "Job", f"other-{world.marker}", spec={"template": {"spec": pod}})
    job["metadata"]["labels"] = {
        f"kueue.x-k8s.io/{name.replace('_', '-')}": value
        for name, value in {"queue_name": "queue", **labels}.items()
    }
    return job


def _of_tasks(world: World) -> Kube:
    return world.kube


def _present(
    words: str,
    manifests: Manifests,
    holds: Callable[[World], Awaitable[bool]],
    *,
    where: Callable[[World], Kube] = _of_tasks,
) -> Surroundings:
    async def begin(world: World) -> None:
        for one in manifests(world):
            await where(world).run("apply", "-f", "-", input_text=json.dumps(one))
        await eventually(lambda: holds(world), words)

    async def end(world: World) -> None:
        for one in manifests(world):
            name = one["metadata"]["name"]
            await where(world).run("delete", one["kind"], name, "--ignore-not-found", "--wait=false")

    return Surroundings(words=words, begin=begin, end=end)


def _of(world: World, expression: str) -> str:
    return expression.replace("<marker>", world.marker)


def _object(api: str, kind: str, name: str, **rest: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest}


def _probe(plural: str, world: World) -> Object:
    """Return an object that the API server rejects or changes once the rule is active."""
    container = {"name": "c", "image": "none", "command": [world.marker]}
    pod = {"restartPolicy": "Never", "initContainers": [container], "containers": [container | {"name": "d"}]}
    if plural == "persistentvolumeclaims":
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(REFUSED_BYTES)}}}
        return _object("v1", "PersistentVolumeClaim", PROBE, spec=claim)
    if plural == "jobs":
        return _object("batch/v1", "Job", PROBE, spec={"template": {"spec": pod}})
    return _object("v1", "Pod", PROBE, spec=pod)


async def _is_refused(world: World, manifest: Mapping[str, Any], words: str) -> bool:
    try:
        await world.kube.run("create", "--dry-run=server", "-f", "-", input_text=json.dumps(manifest))
    except CommandError as error:
        return words in error.output
    return False
