"""What a user can do about a failed task. Pure. The page "My task failed" has the same advice in full."""

from collections.abc import Mapping

from poiesis_cli.tes import Task

_OPERATOR = "forward the message to the server's operators"
_AGAIN = "create the task again: poiesis rerun"
# By `reason` of the log's metadata: Kubernetes' reasons, and those of Poiesis.
_BY_REASON: Mapping[str, str] = {
    "OOMKilled": "request more memory (resources.ram_gb; GB are 10^9 bytes)",
    "ImagePullBackOff": "check the image's name and tag; a private registry needs a pull secret",
    "ErrImagePull": "check the image's name and tag; a private registry needs a pull secret",
    "StartError": "check that workdir is a directory, and that resources.ram_gb is not too small",
    "Evicted": "request more disk (resources.disk_gb), and write to volumes instead of /tmp",
    "DeadlineExceeded": "request a longer wall time (backend parameter wall_time_seconds), or split the task",
    "Unschedulable": "request less CPU, memory or disk, or ask the server's operators",
    "FailedMount": _OPERATOR,
    "Invalid": _OPERATOR,
    "FailedCreate": _OPERATOR,
    "CreateContainerConfigError": _OPERATOR,
    "Deactivated": _OPERATOR,
    "NodeLost": _AGAIN,
    "ContainerStatusUnknown": _AGAIN,
    "PodStalled": _AGAIN,
    "EvictionByEvictionAPI": _AGAIN,
    "PreemptionByScheduler": _AGAIN,
    "PodDeleted": _AGAIN,
    "JobDeleted": _AGAIN,
}
_BY_EXIT_CODE: Mapping[int, str] = {
    126: "check that the program is executable and built for the nodes' CPU architecture",
    127: "the image does not have the program, or the command needs a shell: sh -c '…'",
    66: "check the path of stdin; an image that does not run as root needs inputs below /data",
    74: "check the paths of stdout and stderr, and the free space (resources.disk_gb)",
}
_BY_CONTAINER: Mapping[str, str] = {
    "tif": "check the URL of the input; the server's credentials must be able to read it, not yours",
    "tof": "check the URL of the output; the server's credentials must be able to write to it, not yours",
}


def advice(task: Task) -> str:
    """Return what to do about the failure; empty if the task has not failed, or there is no advice."""
    metadata = task.last_attempt.metadata
    if task.state == "PREEMPTED":
        return _AGAIN
    if task.state not in {"EXECUTOR_ERROR", "SYSTEM_ERROR"}:
        return ""
    if found := _BY_REASON.get(metadata.get("reason", "")):
        return found
    if found := _BY_CONTAINER.get(metadata.get("container", "").partition("-")[0]):
        return found
    code = task.failed_executor[1] if task.failed_executor else None
    if code is None:
        return ""
    return _BY_EXIT_CODE.get(code, "read the output of the executor")
