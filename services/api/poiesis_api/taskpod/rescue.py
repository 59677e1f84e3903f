"""Sidecars that send a task's outputs after an executor was killed together with its helper. Pure.

Kubernetes starts no further container in a Pod whose init container failed, so `tof` never runs then. A
native sidecar is still alive: it becomes the filer within the Pod's grace period (ADR 0025).
"""

from collections.abc import Sequence

from poiesis_api.config import TaskPodConfig
from poiesis_api.taskpod.manifest import Manifest, resources, volume_mount
from poiesis_models import labels, paths
from poiesis_models.plan import PodPlan

STOP_SECONDS = 10  # for a filer that has used up its time to abort what it sends, and to be killed


def rescue_names(outputs: int, *, upload_on_error: bool, config: TaskPodConfig) -> tuple[str, ...]:
    """Return one name per container that sends outputs; none if outputs are not sent after a kill."""
    if not (upload_on_error and config.executors.outputs_after_kill_seconds):
        return ()
    return tuple(labels.rescue_name(index) for index in range(outputs))


def pod_grace_seconds(plan: PodPlan, config: TaskPodConfig) -> int:
    """Return the Pod's terminationGracePeriodSeconds: the time for sending, then as much as other Pods have.

    A Pod that is deleted ends no later: helpers, recorder and an idle sidecar have time limits of their own.
    """
    more = config.executors.outputs_after_kill_seconds + STOP_SECONDS if plan.rescues else 0
    return config.termination_grace_period_seconds + more


def rescue_container(name: str, tof: Manifest, filer: Sequence[str], config: TaskPodConfig) -> Manifest:
    """Return the sidecar that replaces a container of `tof`: the same image, Secrets and volumes.

    `filer`: the end of the helper's command line that runs the filer.
    """
    run_dir = ["--run", paths.RUN]
    wait = [
        *(paths.HELPER, "rescue", *run_dir, "--runs", paths.RUNS),
        *("--killed", labels.EXECUTOR, "--unless", labels.TOF),
        *("--ask", paths.RESCUE_FILE),
    ]
    run = [
        *(paths.HELPER, "run", *run_dir, "--log-bytes", str(config.executors.log_bytes)),
        *("--grace", str(STOP_SECONDS)),
        *("--time-limit", str(config.executors.outputs_after_kill_seconds)),
        *filer,
    ]
    mounts = [
        {**mount, "subPath": name} if mount["name"] == "run" else mount for mount in tof["volumeMounts"]
    ]
    return {
        **tof,
        "name": name,
        "restartPolicy": "Always",
        "command": [*wait, "--", *run],
        "resources": resources(config.resources.rescue),
        "volumeMounts": [*mounts, volume_mount("run", paths.RUNS, read_only=True)],
    }
