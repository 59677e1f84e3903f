"""Check that a cluster works: its API responds, and a Pod completes."""

import json
import time
from typing import Any, Protocol

from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, wait_until

_API_ANSWERS_S = 20
_PROBE_POD_S = 40
_FIRST_PROBE_POD_S = 90  # in a new cluster that is still starting


class Kubectl(Protocol):
    """Run kubectl on a cluster: return its output or raise CommandFailed."""

    def __call__(self, *arguments: str, input_text: str | None = None, timeout: float = 120) -> str: ...


def works(kubectl: Kubectl, image: str | None, *, new: bool = False) -> bool:
    """Return whether the API responds and a Pod with cluster DNS and, if `new`, a volume succeeds.

    `image`: of the Pod; None: only the API is checked.
    """
    try:
        wait_until(lambda: _api_answers(kubectl), "an answer from the API server", seconds=_API_ANSWERS_S)
        if image is not None:
            _run_probe(kubectl, image, volume=new, seconds=_FIRST_PROBE_POD_S if new else _PROBE_POD_S)
    except LabError as error:
        report(f"lab: the cluster does not work: {error}")
        return False
    return True


def _api_answers(kubectl: Kubectl) -> bool:
    try:
        kubectl("--request-timeout=3s", "get", "--raw", "/readyz", timeout=20)
    except LabError:
        return False
    return True


def _run_probe(kubectl: Kubectl, image: str, *, volume: bool, seconds: float) -> None:
    """Run the Pod: it needs a ServiceAccount, scheduling, the image, the network and CoreDNS, or storage."""
    name = f"lab-probe-{time.time_ns():x}"

    def phase() -> str:
        return kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")

    kubectl("apply", "-f", "-", input_text=json.dumps(probe_objects(name, image, volume=volume)))
    try:
        wait_until(
            lambda: phase() in ("Succeeded", "Failed"),
            f"the end of Pod {name}",
            seconds=seconds,
            hint=lambda: kubectl("describe", "pod", name),
        )
        if phase() == "Failed":
            raise LabError(f"Pod {name} failed: {kubectl('logs', name)}")
    finally:
        kubectl("delete", "pod,pvc", "-l", f"lab-probe={name}", "--wait=false")


def probe_objects(name: str, image: str, *, volume: bool) -> dict[str, Any]:
    """Return a Pod that succeeds if cluster DNS resolves the API server, with or without a default volume."""
    script = "until nslookup kubernetes.default.svc.cluster.local.; do sleep 0.2; done; touch /data/file"
    metadata = {"name": name, "labels": {"lab-probe": name}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    data = {"persistentVolumeClaim": {"claimName": name}} if volume else {"emptyDir": {}}
    container = {
        "name": "probe",
        "image": image,
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": _FIRST_PROBE_POD_S,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [container],
            "volumes": [{"name": "data", **data}],
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [claim, pod] if volume else [pod]}
