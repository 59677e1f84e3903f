"""Names and labels of a task's Kubernetes objects, derived from its id so that creates are idempotent."""

from uuid import UUID

TASK_LABEL = "poiesis.io/task"
PLAN_ANNOTATION = "poiesis.io/plan"
NONCE_LABEL = "poiesis.io/nonce"  # of a Job: part of the names of its Secrets
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

OBJECT_NAME = r"poiesis-(?P<task>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"  # the form of `object_name`
POD_SUFFIX = "-[a-z0-9]{5}"  # appended by the Job controller

NONCE_CHARACTERS = 16  # hexadecimal: 64 random bits

TREC_CONTAINER = "trec"
PAUSE_CONTAINER = "pause"
# Names of the other containers: a prefix and an index.
TIF, STREAM, EXECUTOR, TOF, RESCUE = "tif-", "stream-", "executor-", "tof-", "rescue-"


def object_name(task_id: UUID) -> str:
    """Return the name of the task's Job, ServiceAccount and PersistentVolumeClaim (44 characters)."""
    return f"poiesis-{task_id}"


def secret_name(task_id: UUID, nonce: str) -> str:
    """Return the name of the first Secret of a task's Job. `nonce`: the value of the Job's NONCE_LABEL."""
    return f"{object_name(task_id)}-{nonce}"


def content_secret_name(task_id: UUID, nonce: str, number: int) -> str:
    """Return the name of the `number`th additional Secret."""
    return f"{secret_name(task_id, nonce)}-content-{number}"


def task_labels(task_id: UUID) -> dict[str, str]:
    """Return the labels of every object of the task."""
    return {TASK_LABEL: str(task_id), MANAGED_BY_LABEL: "poiesis"}


def task_selector(task_id: UUID | str) -> str:
    """Return the label selector of all objects of one task."""
    return f"{TASK_LABEL}={task_id}"


def stream_name(index: int) -> str:
    """Return the container name of the `index`th filer that streams inputs to the executor."""
    return f"{STREAM}{index}"


def executor_name(index: int) -> str:
    """Return the container name of executor `index` (0-based)."""
    return f"{EXECUTOR}{index}"


def prepare_name(index: int) -> str:
    """Return the name of the container that prepares directories with the image of executor `index`."""
    return f"prepare-{index}"


def tif_name(index: int) -> str:
    """Return the container name of the `index`th filer that stages inputs."""
    return f"{TIF}{index}"


def tof_name(index: int) -> str:
    """Return the container name of the `index`th filer that sends outputs."""
    return f"{TOF}{index}"


def rescue_name(index: int) -> str:
    """Return the name of the sidecar that does the work of `tof-<index>` after an executor was killed."""
    return f"{RESCUE}{index}"
