"""Where and when a task's Pod runs: the Pod's scheduling fields and the Job's labels for Kueue."""

from poiesis_api.config import Queue, TaskPodConfig
from poiesis_api.taskpod.manifest import Manifest

KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"

# Autoscalers must not remove the node of a running task.
KEEP_NODE_ANNOTATIONS = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}


def kueue_labels(queue: Queue) -> dict[str, str]:
    """Return the labels that submit a Job to a queue of Kueue; none if no queue is configured."""
    if queue.kueue_queue_name is None:
        return {}
    names = {
        KUEUE_QUEUE_LABEL: queue.kueue_queue_name,
        KUEUE_PRIORITY_LABEL: queue.kueue_priority_class,
    }
    return {label: name for label, name in names.items() if name is not None}


def scheduling_fields(config: TaskPodConfig) -> Manifest:
    """Return the configured fields of the Pod's spec that decide where and for how long it runs."""
    pod = config.pod
    fields = {
        "imagePullSecrets": [{"name": name} for name in config.pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "affinity": pod.affinity,
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "activeDeadlineSeconds": pod.active_deadline_seconds,
    }
    found = {name: value for name, value in fields.items() if value}
    return found if pod.host_users is None else {**found, "hostUsers": pod.host_users}
