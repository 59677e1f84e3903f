"""Parts of cases: documents to submit, and their states and times."""

from collections.abc import Awaitable, Callable

import yaml

from poiesis_e2e.documents import sh
from poiesis_e2e.failures.case import Within, World
from poiesis_e2e.failures.surroundings import server_name
from poiesis_e2e.install import CHART, GRACE_SECONDS, IMPATIENT
from poiesis_e2e.tes_client import Document, Executor, Output, State

Builder = Callable[[World], Awaitable[Document]]

QUEUED: tuple[State, ...] = ("QUEUED", "INITIALIZING")
RAN: tuple[State, ...] = (*QUEUED, "RUNNING")
CANCELED: tuple[State, ...] = ("CANCELING", "CANCELED")
ASKED = "cancel requested by anonymous"


def patience(threshold: str, slack: float) -> Within:
    """Return a threshold of the controller plus `slack` for all other parts."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["tctl"]["thresholds"]
    return Within(documented=defaults[threshold] + slack, tested=IMPATIENT[threshold] + slack)


AT_ONCE = 5  # seconds: the recorder reads a file and writes a row
SOON = 10  # plus the kubelet, a watch and the controller
START = 20  # a filer starts and tries once, or a container that cannot start is given up
PULL = patience("imagePullSeconds", 30)  # counted from when the first try has failed
CONFIGURATION = patience("configErrorSeconds", 30)
RETRIES = Within(documented=120, tested=60)  # filerRetryAttempts, with back-off
GRACE = Within(documented=35, tested=GRACE_SECONDS + 5)  # terminationGracePeriodSeconds is 30
DISK = 150  # the kubelet measures a volume every one to two minutes (volumeStatsAggPeriod, with its jitter)

RAM_GB = 0.064
# busybox allocates the whole block and the kernel kills it while it is filled
GREEDY = "dd if=/dev/zero of=/dev/null bs=512M count=1"
READY = "echo ready"
WAIT = "while :; do sleep 0.1; done"
FORGE = (  # a record of success, while the helper lives
    "cd /poiesis/run && cp started forged && mv forged started"
    ' && echo \'{"exit_code":0,"signal":0,"oom":false,"term":false,"start_ns":1,"end_ns":2,'
    '"max_rss_kb":1,"user_us":1,"sys_us":1}\' >.forged && mv .forged exit.json'
)
OVERWRITE = r"""
start=$(sed -n 's/^\([0-9a-f]*\)-[0-9a-f]* r-xp .*/\1/p' /proc/1/maps 2>/dev/null | head -n 1)
[ -n "$start" ] && dd if=/dev/zero of=/proc/1/mem bs=1 seek=$((0x$start)) count=65536 2>/dev/null
for fd in 0 1 2 3 4 5 6; do (: >/proc/1/fd/$fd) 2>/dev/null && echo open $fd; done
sleep 1; echo end; exit 3
"""  # access to /proc/1/mem and /proc/1/fd needs the right to trace the helper
UNTIL_SIGNALED = f"{READY}; trap 'echo done; exit 0' USR1; {WAIT}"  # until the node sends a signal


def scripts(*texts: str, **fields: object) -> Builder:
    """Build a task with one shell script per executor; `fields`: further fields of the document."""

    async def build(world: World) -> Document:
        document: Document = {"executors": [sh(world.images.busybox, text, world.marker) for text in texts]}
        return {**document, **fields}  # type: ignore[typeddict-item]

    return build


def argv(*words: str, bare: bool = False, **fields: object) -> Builder:
    """Build a task with one executor without a shell; `bare`: in an image that has no shell."""

    async def build(world: World) -> Document:
        where = world.images.noshell if bare else world.images.busybox
        document: Document = {"executors": [{"image": where, "command": list(words)}]}
        return {**document, **fields}  # type: ignore[typeddict-item]

    return build


def redirected(**fields: str) -> Builder:
    """Build a task whose executor reads stdin and prints a word; `fields`: further executor fields."""

    async def build(world: World) -> Document:
        executor = sh(world.images.busybox, "cat; echo heard")
        return {"executors": [{**executor, **fields}]}  # type: ignore[typeddict-item]

    return build


def image(name: str, *before: str) -> Builder:
    """Build a task with an executor of an image, after the scripts `before`. `{port}`: of the TES API."""

    async def build(world: World) -> Document:
        port = world.api_url.rpartition(":")[2]
        last: Executor = {"image": name.format(port=port), "command": ["true"]}
        return {"executors": [*(sh(world.images.busybox, script) for script in before), last]}

    return build


def fetched(url: Callable[[World], str]) -> Builder:
    """Build a task with one input and an executor that never runs."""

    async def build(world: World) -> Document:
        return {
            "executors": [sh(world.images.busybox, "echo never")],
            "inputs": [{"path": "/in/it", "url": url(world), "type": "FILE"}],
        }

    return build


def sent(*texts: str, bucket: str | None = None, **fields: object) -> Builder:
    """Build a task with an output `/out/it`, sent to the world's bucket or to `bucket`."""

    async def build(world: World) -> Document:
        url = world.bucket.url("it") if bucket is None else f"s3://{bucket}/it"
        outputs: list[Output] = [{"path": "/out/it", "url": url}]
        executors = [sh(world.images.busybox, text, world.marker) for text in texts]
        document: Document = {"executors": executors, "outputs": outputs}
        return {**document, **fields}  # type: ignore[typeddict-item]

    return build


async def ignored_failure(world: World) -> Document:
    return {
        "executors": [
            {**sh(world.images.busybox, "exit 3"), "ignore_error": True},
            sh(world.images.busybox, "echo and yet it runs"),
        ]
    }


async def ignored_out_of_memory(world: World) -> Document:
    greedy: Executor = {
        **sh(world.images.busybox, f"echo partly | tee /out/it; {GREEDY}"),
        "ignore_error": True,
    }
    return {
        "executors": [greedy, sh(world.images.busybox, "echo never")],
        "resources": {"ram_gb": RAM_GB},
        "outputs": [{"path": "/out/it", "url": world.bucket.url("it")}],
    }


async def foreign_image(world: World) -> Document:
    return {"executors": [{"image": world.images.foreign, "command": ["/tool"]}]}


async def private_object(world: World) -> Document:
    await world.bucket.put("private", b"not public")
    return await fetched(lambda _: f"{world.storage.pod_url}/{world.bucket.name}/private")(world)


def without_tls(world: World) -> str:
    return f"{world.web_url.replace('http://', 'https://')}/it"


def refused(world: World) -> str:
    return f"{world.web_url.rpartition(':')[0]}:1/it"


def fetched_and_shown(script: str = "cat /in/it") -> Builder:
    """Build a task with an input from the surroundings' `server`, and an executor that prints it."""

    async def build(world: World) -> Document:
        pod = await world.services.get("pod", server_name(world))
        assert pod is not None
        url = f"http://{pod['status']['podIP']}/it"
        return {
            "executors": [sh(world.images.busybox, script)],
            "inputs": [{"path": "/in/it", "url": url, "type": "FILE"}],
        }

    return build


def large_input(size: int, disk_gb: float) -> Builder:
    """Build a task with an input of `size` bytes, for a smaller volume."""

    async def build(world: World) -> Document:
        return {
            "executors": [sh(world.images.busybox, "echo never")],
            "inputs": [
                {"path": "/in/it", "url": await world.bucket.put("large", bytes(size)), "type": "FILE"}
            ],
            "resources": {"disk_gb": disk_gb},
        }

    return build
