"""Names and labels of a task's Kubernetes objects: all derive from the task id, so creates are idempotent."""

from uuid import UUID

TASK_LABEL = "poiesis.io/task"
PLAN_ANNOTATION = "poiesis.io/plan"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

OBJECT_NAME = r"poiesis-(?P<task>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"  # as `object_name` makes it
POD_SUFFIX = "-[a-z0-9]{5}"  # what the Job controller makes a Pod's name of

TREC_CONTAINER = "trec"
PAUSE_CONTAINER = "pause"


def object_name(task_id: UUID) -> str:
    """Name of the task's Job, Secret, ServiceAccount and PVC (44 characters; a Job may have 52)."""
    return f"poiesis-{task_id}"


def content_secret_name(task_id: UUID, number: int) -> str:
    """Name of the Secret that carries the `number`th part of the inputs' literal contents."""
    return f"{object_name(task_id)}-content-{number}"


def task_labels(task_id: UUID) -> dict[str, str]:
    """Labels that every object of the task carries: one selector finds them all."""
    return {TASK_LABEL: str(task_id), MANAGED_BY_LABEL: "poiesis"}


def task_selector(task_id: UUID) -> str:
    """Label selector for everything of one task."""
    return f"{TASK_LABEL}={task_id}"


def stream_name(index: int) -> str:
    """Container name of the `index`th filer that streams inputs while the executor reads them."""
    return f"stream-{index}"


def executor_name(index: int) -> str:
    """Container name of executor `index` (0-based)."""
    return f"executor-{index}"


def prepare_name(index: int) -> str:
    """Container name of what runs in the image of executor `index` before it."""
    return f"prepare-{index}"


def tif_name(index: int) -> str:
    """Container name of the `index`th filer that stages inputs."""
    return f"tif-{index}"


def tof_name(index: int) -> str:
    """Container name of the `index`th filer that sends outputs."""
    return f"tof-{index}"


def rescue_name(index: int) -> str:
    """Container name of the sidecar that does the work of `tof-<index>` after an executor was killed."""
    return f"rescue-{index}"
