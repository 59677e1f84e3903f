"""A hand-written Job with the containers of a TaskPod but without their work: the time of Kubernetes itself.

[sidecar, (another), (tif), executor, (tof), pause], all busybox. Its executor records its end by the
kernel's clock, which node and host share on a kind cluster; Kubernetes' own times are whole seconds.
"""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch

_SIDECAR = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
_EXECUTOR = "read up idle </proc/uptime; echo $up >/dev/termination-log"
LABEL = "poiesis-bench"
_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class JobTimes:
    """Seconds after the create request."""

    executor_ended: float
    complete: float


class Floor:
    """Runner of baseline Jobs in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, *, image: str, volume: str, cpu: str) -> None:
        api = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._jobs: Any = client.BatchV1Api(api)
        self._core: Any = client.CoreV1Api(api)
        self._namespace, self._image, self._volume, self._cpu = namespace, image, volume, cpu

    def run(self, count: int, *, data: bool) -> list[JobTimes]:
        """Run `count` Jobs at once and return their times. `data`: with filers and a volume."""
        batch = uuid.uuid4().hex[:8]
        start = time.time()
        for number in range(count):
            self._jobs.create_namespaced_job(
                self._namespace, self.manifest(f"floor-{batch}-{number}", batch, data=data)
            )
        complete = self._completions(batch, count)
        ended = self._executor_ends(batch)
        self._jobs.delete_collection_namespaced_job(
            self._namespace, label_selector=f"{LABEL}={batch}", propagation_policy="Background"
        )
        return [
            JobTimes(executor_ended=ended[name] - start, complete=at - start) for name, at in complete.items()
        ]

    def _completions(self, batch: str, count: int) -> dict[str, float]:
        found: dict[str, float] = {}
        stream: Any = watch.Watch()  # type: ignore[no-untyped-call]
        events = stream.stream(
            self._jobs.list_namespaced_job,
            self._namespace,
            label_selector=f"{LABEL}={batch}",
            timeout_seconds=_TIMEOUT_S,
        )
        for event in events:
            job = event["object"]
            conditions = {one.type: one for one in job.status.conditions or () if one.status == "True"}
            if "Failed" in conditions:
                raise RuntimeError(f"Job {job.metadata.name} failed: {conditions['Failed'].message}")
            if "Complete" in conditions:
                found.setdefault(job.metadata.name, time.time())
            if len(found) == count:
                stream.stop()
        if len(found) < count:
            raise TimeoutError(f"{count - len(found)} of {count} Jobs were not complete in {_TIMEOUT_S} s")
        return found

    def _executor_ends(self, batch: str) -> dict[str, float]:
        booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        pods = self._core.list_namespaced_pod(self._namespace, label_selector=f"{LABEL}={batch}").items
        return {
            pod.metadata.labels["job-name"]: booted + float(status.state.terminated.message)
            for pod in pods
            for status in pod.status.init_container_statuses
            if status.name == "executor"
        }

    def manifest(self, name: str, batch: str, *, data: bool) -> dict[str, Any]:
        """Return a Job with the label `LABEL=batch`. `data`: with filers and a volume."""

        def container(part: str, script: str, **more: Any) -> dict[str, Any]:
            mounts = {"volumeMounts": [{"name": "task", "mountPath": "/task"}]} if data else {}
            return {
                "name": part,
                "image": self._image,
                "command": ["sh", "-c", script],
                "resources": {
                    "requests": {"cpu": self._cpu if part == "executor" else "10m", "memory": "64Mi"},
                    "limits": {"cpu": self._cpu if part == "executor" else "1", "memory": "64Mi"},
                },
                **mounts,
                **more,
            }

        steps = [("executor", _EXECUTOR)]
        sidecars = ["sidecar"]
        if data:
            sidecars.append("rescue")
            steps = [("tif", "true"), *steps, ("tof", "true")]
        labels = {LABEL: batch}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "enableServiceLinks": False,
                        "initContainers": [
                            *(container(part, _SIDECAR, restartPolicy="Always") for part in sidecars),
                            *(container(part, script) for part, script in steps),
                        ],
                        "containers": [container("pause", "true")],
                        "volumes": [{"name": "task", **self._source()}] if data else [],
                    },
                },
            },
        }

    def _source(self) -> dict[str, Any]:
        if self._volume == "emptyDir":
            return {"emptyDir": {}}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
