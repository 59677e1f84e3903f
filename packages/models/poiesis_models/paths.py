"""Paths in the containers of a TaskPod.

Files of Poiesis are below `/poiesis`. The task's data is below `DATA_ROOT` at the same paths as in executors:
an executor's `/data/a.txt` is `/task/root/data/a.txt` for a filer.
"""

from collections.abc import Iterable
from posixpath import join

POIESIS = "/poiesis"
BIN = "/poiesis/bin"  # emptyDir: the helper; trec rw, others ro
HELPER = "/poiesis/bin/helper"
RUN = "/poiesis/run"  # the container's own directory in the run volume, rw
RUNS = "/poiesis/runs"  # trec (rw) and rescue (ro): the whole run volume, one directory per container
PREVIOUS = "/poiesis/previous"  # executors: the run directory of the previous executor, ro
ACK = "/poiesis/ack"  # trec rw, others ro
ACK_FILE = "/poiesis/ack/done"  # content: 0 = the task is COMPLETE, 1 = any other outcome
RESCUE_FILE = "/poiesis/ack/rescue"  # with content: the recorder requests the outputs of a killed executor
SPEC = "/poiesis/spec"  # filers only: work.json and the contents of literal inputs
WORK_LIST = "/poiesis/spec/work.json"
CREDENTIALS = "/poiesis/credentials"  # filers only: a directory for each of the task's S3 credentials
WEB_IDENTITY = "/poiesis/web-identity"  # filers of object storage only: the file `token`, for AWS' STS
SECRET = "/poiesis/secret"  # a filer's own Secret, if it has one  # noqa: S105
SHARED = "/poiesis/shared"  # a filer's shared volumes, each at its own prefix below
RECORDER = "/poiesis/recorder"  # trec only
RECORDER_PATHS = "/poiesis/recorder/paths"  # the task's paths in parts; see `path_list`
RECORDER_TOKEN = "/poiesis/recorder/token"  # this task's token  # noqa: S105
GATEWAY_CA = "/poiesis/recorder/gateway-ca.crt"  # with transport gateway: CA certificates of the gateway
RECORDER_DSN = "/poiesis/recorder/dsn"  # with transport postgres
POSTGRES_CA = "/poiesis/recorder/postgres-ca.crt"  # CA certificate of Postgres, if it is private
KUBERNETES_TOKEN = "/poiesis/recorder/kubernetes/token"  # noqa: S105
KUBERNETES_CA = "/poiesis/recorder/kubernetes/ca.crt"
PATHS = "/poiesis/bin/paths"  # the list of paths in one file, for helpers
COLLECT = (
    "/poiesis/collect"  # executors: the whole data root, to place and collect files that lie outside mounts
)
FILLED = "/poiesis/filled"  # containers that fill directories from images: what they have copied
TASK = "/task"  # the task volume, in filers and trec
DATA_SUBPATH = "root"
DATA_ROOT = join(TASK, DATA_SUBPATH)
FILLED_SUBPATH = "filled"

HELPER_IN_IMAGE = "/helper"  # in the helper's and the recorder's images
_NO_NAMES = {"", ".", ".."}


def names_all(path: str) -> bool:
    """Return whether each segment of a relative path is a name: not empty, `.` or `..`."""
    return _NO_NAMES.isdisjoint(path.split("/"))


def data_path(container_path: str) -> str:
    """Return the path for a filer of an executor's absolute path."""
    return join(DATA_ROOT, container_path.lstrip("/"))


def data_subpath(container_path: str) -> str:
    """Return the subPath in the task volume of an executor's absolute path."""
    return join(DATA_SUBPATH, container_path.lstrip("/"))


def path_list(paths_by_kind: Iterable[tuple[str, Iterable[str]]]) -> bytes:
    """Encode the helper's list of a task's paths: each entry is one character, an absolute path and a NUL.

    Kinds: `m` directories and `q` FIFOs to create; `s` directories that are mounted in executors; `p` files
    to place; `f` directories to fill from the image, and `x` those to exclude; `o` outputs and `w` patterns
    of outputs, in which links are followed.
    """
    return b"".join(f"{kind}{path}\0".encode() for kind, listed in paths_by_kind for path in listed)
