"""The failure table: one case for each way in which a task ends otherwise than well.

docs/failures.md is rendered from this list, and stories/test_failures.py brings each case about on a cluster.
"""

from collections.abc import Awaitable, Callable, Sequence

from documents import sh
from failures.case import After, Case, World
from failures.disturbances import (
    canceled,
    deadline,
    deleted,
    executor_runs,
    no_node_found,
    pull_failed,
    runs,
)
from failures.sights import (
    complained,
    kept_the_end,
    logged,
    no_object,
    no_process,
    nothing_stored,
    pod_failed,
    printed,
    stored,
)
from tes_client import Document, Executor, Output, State

Builder = Callable[[World], Awaitable[Document]]

EXECUTORS = "What an executor does"
IMAGES = "Images"
DATA = "Inputs and outputs"
CANCEL = "Cancel"
OUTSIDE = "What others do to it"
SECTIONS = (EXECUTORS, IMAGES, DATA, CANCEL, OUTSIDE)

_QUEUED: tuple[State, ...] = ("QUEUED", "INITIALIZING")
_RAN: tuple[State, ...] = (*_QUEUED, "RUNNING")
_CANCELED: tuple[State, ...] = ("CANCELING", "CANCELED")
_ASKED = "cancel requested by anonymous"

_AT_ONCE = 5  # seconds: the recorder reads a file and writes a row
_SOON = 10  # the kubelet, a watch and the controller besides
_START = 20  # a filer starts and tries once, or a container that cannot start is given up
_PULL = 90  # tctl.thresholds.imagePullSeconds is 60, counted from when the first try has failed
_RETRIES = 120  # filerRetryAttempts is 5, with back-off
_GRACE = 35  # terminationGracePeriodSeconds is 30
_DISK = 90  # the kubelet measures volumes once a minute

_RAM_GB = 0.064
# busybox allocates the whole block and the kernel kills it while it is filled
_GREEDY = "dd if=/dev/zero of=/dev/null bs=512M count=1"
_READY = "echo ready"
_WAIT = "while :; do sleep 0.1; done"
_FORTY = "a line of exactly forty bytes, newline:"


# --- documents -----------------------------------------------------------------------------------------


def scripts(*texts: str, **fields: object) -> Builder:
    """Shell scripts, one an executor; `fields` of the document beside them."""

    async def build(world: World) -> Document:
        marked = f"marked-{world.bucket.name}"
        document: Document = {"executors": [sh(world.images.busybox, text, marked) for text in texts]}
        return {**document, **fields}  # type: ignore[typeddict-item]

    return build


def argv(*words: str, bare: bool = False, **fields: object) -> Builder:
    """One executor without a shell; `bare`: in an image that has none."""

    async def build(world: World) -> Document:
        where = world.images.noshell if bare else world.images.busybox
        document: Document = {"executors": [{"image": where, "command": list(words)}]}
        return {**document, **fields}  # type: ignore[typeddict-item]

    return build


def redirected(**fields: str) -> Builder:
    """One executor that reads its stdin and says a word; `fields` of the executor beside that."""

    async def build(world: World) -> Document:
        executor = sh(world.images.busybox, "cat; echo heard")
        return {"executors": [{**executor, **fields}]}  # type: ignore[typeddict-item]

    return build


def image(name: str, *before: str) -> Builder:
    """An executor of this image, after those that run the scripts `before`. `{port}`: where TES answers."""

    async def build(world: World) -> Document:
        port = world.api_url.rpartition(":")[2]
        last: Executor = {"image": name.format(port=port), "command": ["true"]}
        return {"executors": [*(sh(world.images.busybox, script) for script in before), last]}

    return build


def fetched(url: Callable[[World], str]) -> Builder:
    """An input, and an executor that never runs."""

    async def build(world: World) -> Document:
        return {
            "executors": [sh(world.images.busybox, "echo never")],
            "inputs": [{"path": "/in/it", "url": url(world), "type": "FILE"}],
        }

    return build


def sent(script: str, *, bucket: str | None = None, **fields: object) -> Builder:
    """An output `/out/it`; to the world's bucket unless another is named."""

    async def build(world: World) -> Document:
        url = world.bucket.url("it") if bucket is None else f"s3://{bucket}/it"
        outputs: list[Output] = [{"path": "/out/it", "url": url}]
        document: Document = {"executors": [sh(world.images.busybox, script)], "outputs": outputs}
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
    greedy: Executor = {**sh(world.images.busybox, f"echo before; {_GREEDY}"), "ignore_error": True}
    return {
        "executors": [greedy, sh(world.images.busybox, "echo never")],
        "resources": {"ram_gb": _RAM_GB},
        "outputs": [{"path": "/out/it", "url": world.bucket.url("it")}],
    }


async def private_object(world: World) -> Document:
    await world.bucket.put("private", b"not for everybody")
    return await fetched(lambda _: f"{world.storage.pod_url}/{world.bucket.name}/private")(world)


def _without_tls(world: World) -> str:
    return f"{world.web_url.replace('http://', 'https://')}/it"


def _refused(world: World) -> str:
    return f"{world.web_url.rpartition(':')[0]}:1/it"


# --- the table -----------------------------------------------------------------------------------------

CASES: Sequence[Case] = (
    Case(
        id="exit-code",
        section=EXECUTORS,
        title="It exits with 3, after another that did not fail",
        document=scripts("echo one", "echo two; exit 3", "echo never"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 1 exited with code 3",
        container="executor-1",
        exit_codes=(0, 3),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(printed("two\n", index=1), pod_failed()),
    ),
    Case(
        id="exit-code-ignored",
        section=EXECUTORS,
        title="It exits with 3 and has `ignore_error`",
        document=ignored_failure,
        state="COMPLETE",
        exit_codes=(3, 0),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(printed("and yet it runs\n", index=1),),
    ),
    Case(
        id="failed-with-outputs",
        section=EXECUTORS,
        title="It exits with 3, and the task has outputs (`executors.onExecutorError: upload`)",
        document=sent("echo partly >/out/it; exit 3"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_START,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(stored("it", "partly\n"),),
    ),
    Case(
        id="signal",
        section=EXECUTORS,
        title="It dies of a signal that was not ours (SIGSEGV)",
        document=scripts("kill -SEGV $$"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 139",
        container="executor-0",
        exit_codes=(139,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(logged("executor 0 was ended by signal 11 (exit code 139)"),),
    ),
    Case(
        id="killed",
        section=EXECUTORS,
        title="It is killed with SIGKILL, and not for its memory",
        document=scripts("kill -KILL $$"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 137",
        container="executor-0",
        exit_codes=(137,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(logged("executor 0 was ended by signal 9 (exit code 137)"),),
    ),
    Case(
        id="not-found",
        section=EXECUTORS,
        title="Its program is not in the image",
        document=argv("/no/such/program", bare=True),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 127",
        container="executor-0",
        exit_codes=(127,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(complained("/no/such/program"),),
    ),
    Case(
        id="not-executable",
        section=EXECUTORS,
        title="Its program is not executable",
        document=argv("/etc/passwd"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 126",
        container="executor-0",
        exit_codes=(126,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(complained("/etc/passwd"),),
    ),
    Case(
        id="stdin-missing",
        section=EXECUTORS,
        title="Its `stdin` is a file that does not exist",
        document=redirected(stdin="/no/such/file"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 66",
        container="executor-0",
        exit_codes=(66,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(complained("cannot open stdin /no/such/file"),),
    ),
    Case(
        id="stdout-unwritable",
        section=EXECUTORS,
        title="Its `stdout` is a file that cannot be written, and it exits with 0",
        document=redirected(stdout="/etc/passwd/out"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 74",
        container="executor-0",
        exit_codes=(74,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(complained("cannot write /etc/passwd/out: Not a directory"), printed("heard\n")),
    ),
    *(
        Case(
            id=name,
            section=EXECUTORS,
            title=title,
            document=document,
            state="SYSTEM_ERROR",
            reasons=("StartError",),
            message="executor-0 could not be started: <the words of the container runtime>",
            container="executor-0",
            reporter="recorder",
            within=_START,
            after=After.POD,
            states=_QUEUED,
            sees=(pod_failed(),),
        )
        for name, title, document in (
            ("workdir", "Its `workdir` is a file of the image", redirected(workdir="/etc/passwd")),
            (
                "too-little-memory",
                "`ram_gb` is too little even to start it",
                scripts("echo never", resources={"ram_gb": 0.000001}),
            ),
        )
    ),
    *(
        Case(
            id=f"out-of-memory-{name}",
            section=EXECUTORS,
            title=title,
            document=document,
            state="EXECUTOR_ERROR",
            reasons=("OOMKilled",),
            message="executor 0 ran out of memory",
            container="executor-0",
            exit_codes=(137,),
            reporter="recorder",
            within=_AT_ONCE,
            after=After.EXECUTOR,
            states=_RAN,
            sees=(pod_failed(),),
        )
        for name, title, document in (
            (
                "itself",
                "Its own process runs out of memory",
                argv(*_GREEDY.split(), resources={"ram_gb": _RAM_GB}),
            ),
            (
                "child",
                "A child runs out of memory, and it exits with 3",
                scripts(f"{_GREEDY}; exit 3", "echo never", resources={"ram_gb": _RAM_GB}),
            ),
            (
                "child-hidden",
                "A child runs out of memory, and it exits with 0 all the same",
                scripts(f"{_GREEDY}; exit 0", "echo never", resources={"ram_gb": _RAM_GB}),
            ),
        )
    ),
    Case(
        id="out-of-memory-ignored",
        section=EXECUTORS,
        title="It runs out of memory and has `ignore_error`: that is never ignored, and nothing is sent",
        document=ignored_out_of_memory,
        state="EXECUTOR_ERROR",
        reasons=("OOMKilled",),
        message="executor 0 ran out of memory",
        container="executor-0",
        exit_codes=(137,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(printed("before\n"), nothing_stored(), pod_failed()),
    ),
    Case(
        id="flood",
        section=EXECUTORS,
        title="It prints 200 MB, then exits with 3",
        document=scripts(f"yes '{_FORTY}' | head -c 200000000; echo last words; exit 3"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(kept_the_end("last words\n"),),
    ),
    Case(
        id="garbage",
        section=EXECUTORS,
        title="It writes garbage into `/poiesis/run`: a false `exit.json` and `started`, a FIFO for "
        "`stdout`, a link to `/dev/zero` for `stderr`, 100 MB of `progress.jsonl`; then exits with 3",
        document=scripts(
            "cd /poiesis/run && rm -f stdout stderr && mkfifo stdout && ln -s /dev/zero stderr"
            " && echo garbage >exit.json && echo garbage >started"
            " && dd if=/dev/zero of=progress.jsonl bs=1M count=100 2>/dev/null; sleep 2; exit 3"
        ),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
    ),
    Case(
        id="forged",
        section=EXECUTORS,
        title="It writes an `exit.json` that says that it succeeded, runs on, then exits with 3",
        document=scripts(
            "cd /poiesis/run && cp started forged && mv forged started"
            ' && echo \'{"exit_code":0,"signal":0,"oom":false,"term":false,"start_ns":1,"end_ns":2,'
            '"max_rss_kb":1,"user_us":1,"sys_us":1}\' >.forged && mv .forged exit.json'
            "; sleep 3; exit 3",
            "echo never",
        ),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
    ),
    Case(
        id="in-the-way",
        section=EXECUTORS,
        title="It makes directories in `/poiesis/run` where the helper's `exit.json`, `stdout` and `failed` "
        "belong; then exits with 3",
        document=scripts(
            "cd /poiesis/run && rm -f stdout && mkdir -p exit.json/x failed/x stdout/x; sleep 1; exit 3"
        ),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_SOON,
        after=After.EXECUTOR,
        states=_RAN,
    ),
    Case(
        id="background",
        section=EXECUTORS,
        title="It leaves background processes and zombies, then exits with 3",
        document=scripts(
            'for i in $(seq 20); do sh -c "true & exec sleep 1000" "$0" & done; '
            'sh -c "trap \\"\\" TERM HUP; while :; do sleep 1; done" "$0" & sleep 1; exit 3'
        ),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_AT_ONCE,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(no_process("marked"),),
    ),
    Case(
        id="disk",
        section=EXECUTORS,
        title="It writes more than `disk_gb` into a volume of type `emptyDir`",
        document=scripts(
            f"{_READY}; dd if=/dev/zero of=/data/much bs=1M count=120; {_WAIT}",
            volumes=["/data"],
            resources={"disk_gb": 0.05},
        ),
        state="SYSTEM_ERROR",
        reasons=("Evicted",),
        message='Usage of EmptyDir volume "task" exceeds the limit "50M". ',
        exit_codes=(143,),
        reporter="controller",
        within=_DISK,
        after=After.POD,
        states=_RAN,
        release="second",
    ),
    Case(
        id="run-directory-full",
        section=EXECUTORS,
        title="It writes gigabytes into its run directory",
        document=scripts(f"{_READY}; dd if=/dev/zero of=/poiesis/run/much bs=1M count=1100; {_WAIT}"),
        state="SYSTEM_ERROR",
        reasons=("Evicted",),
        message='Usage of EmptyDir volume "run" exceeds the limit "<bytes>". ',
        exit_codes=(143,),
        reporter="controller",
        within=_DISK,
        after=After.POD,
        states=_RAN,
    ),
    Case(
        id="image-missing",
        section=IMAGES,
        title="The registry does not have the image",
        document=image("localhost:{port}/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <the words of kubelet and registry> not found",
        container="executor-0",
        reporter="controller",
        within=_PULL,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="registry-missing",
        section=IMAGES,
        title="The registry does not answer",
        document=image("registry.invalid/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <the words of kubelet and network>",
        container="executor-0",
        reporter="controller",
        within=_PULL,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="image-late",
        section=IMAGES,
        title="Only a later executor's image cannot be pulled",
        document=image("registry.invalid/no/such:image", "echo kept"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-1 (<image>) cannot start: <the words of kubelet and network>",
        container="executor-1",
        exit_codes=(0,),
        reporter="controller",
        within=_PULL,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(printed("kept\n"),),
    ),
    Case(
        id="image-malformed",
        section=IMAGES,
        title="The image's name is not one that can exist",
        document=image("Not/An/IMAGE:name"),
        state="SYSTEM_ERROR",
        reasons=("InvalidImageName",),
        message="executor-0 (<image>) cannot start: Failed to apply default image tag <the words of kubelet>",
        container="executor-0",
        reporter="controller",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-missing",
        section=DATA,
        title="An input is not in the store",
        document=fetched(lambda world: world.bucket.url("no/such/object")),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot read s3://<bucket>/no/such/object (input /in/it) at <store>: "
        "there is no such object (HTTP 404, NoSuchKey)",
        container="tif-0",
        reporter="recorder",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-no-bucket",
        section=DATA,
        title="An input's bucket does not exist",
        document=fetched(lambda world: f"s3://{world.bucket.name}-not/it"),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot read s3://<bucket>/it (input /in/it) at <store>: "
        "the bucket does not exist (HTTP 404, NoSuchBucket)",
        container="tif-0",
        reporter="recorder",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-404",
        section=DATA,
        title="A web server does not have an input",
        document=fetched(lambda world: f"{world.web_url}/no/such/file"),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot fetch <url>: not found (HTTP 404)",
        container="tif-0",
        reporter="recorder",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-403",
        section=DATA,
        title="A web server does not give an input to everybody",
        document=private_object,
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot fetch <url>: access denied (HTTP 403)",
        container="tif-0",
        reporter="recorder",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-refused",
        section=DATA,
        title="Nothing listens where an input should come from: it may pass, so it is tried again",
        document=fetched(_refused),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot fetch <url>: no connection (connection refused)",
        container="tif-0",
        reporter="recorder",
        within=_RETRIES,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-unknown-host",
        section=DATA,
        title="Nobody knows the host of an input: it may pass, so it is tried again",
        document=fetched(lambda _: "http://no-such-host.default.svc.cluster.local/it"),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot fetch http://no-such-host.default.svc.cluster.local/it: "
        "the host's name does not resolve",
        container="tif-0",
        reporter="recorder",
        within=_RETRIES,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="input-tls",
        section=DATA,
        title="An `https://` input comes from a server without TLS",
        document=fetched(_without_tls),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot fetch <url>: TLS: the server's certificate or protocol is not accepted "
        "(<the words of openssl>)",
        container="tif-0",
        reporter="recorder",
        within=_START,
        after=After.POD,
        states=_QUEUED,
    ),
    Case(
        id="output-no-bucket",
        section=DATA,
        title="An output's bucket does not exist",
        document=sent("echo made | tee /out/it", bucket="no-such-bucket"),
        state="SYSTEM_ERROR",
        reasons=("Error",),
        message="cannot write s3://no-such-bucket/it (output /out/it) at <store>: "
        "the bucket does not exist (HTTP 404, NoSuchBucket)",
        container="tof-0",
        exit_codes=(0,),
        reporter="recorder",
        within=_START,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(printed("made\n"), nothing_stored()),
    ),
    Case(
        id="executor-and-output",
        section=DATA,
        title="An executor fails, and then its output cannot be sent either: both are told",
        document=sent("echo made >/out/it; exit 3", bucket="no-such-bucket"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3; then: cannot write s3://no-such-bucket/it (output /out/it) "
        "at <store>: the bucket does not exist (HTTP 404, NoSuchBucket)",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=_START,
        after=After.EXECUTOR,
        states=_RAN,
        sees=(nothing_stored(),),
    ),
    Case(
        id="cancel-unscheduled",
        section=CANCEL,
        title="No node has room for it",
        document=scripts("true", resources={"cpu_cores": 1000}),
        meanwhile=canceled("while it waits for a node", no_node_found),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        reporter="controller",
        within=_SOON,
        after=After.ASKED,
        states=("QUEUED", *_CANCELED),
        sees=(logged(_ASKED), no_object()),
    ),
    Case(
        id="cancel-pulling",
        section=CANCEL,
        title="Its image cannot be pulled, yet",
        document=image("registry.invalid/no/such:image"),
        meanwhile=canceled("while the image is tried again", pull_failed),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        reporter="recorder",
        within=_SOON,
        after=After.ASKED,
        states=(*_QUEUED, *_CANCELED),
        sees=(logged(_ASKED),),
    ),
    Case(
        id="cancel-inputs",
        section=CANCEL,
        title="An input is being fetched",
        document=fetched(_refused),
        meanwhile=canceled("while `tif-0` runs", runs("tif-0")),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        reporter="recorder",
        within=_SOON,
        after=After.ASKED,
        states=(*_QUEUED, *_CANCELED),
        sees=(logged(_ASKED),),
    ),
    Case(
        id="cancel-obedient",
        section=CANCEL,
        title="An executor exits with 0 on SIGTERM",
        document=scripts(f"trap 'exit 0' TERM; {_READY}; {_WAIT}", "echo never"),
        meanwhile=canceled("while it runs", executor_runs),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        exit_codes=(143,),
        reporter="recorder",
        within=_SOON,
        after=After.ASKED,
        states=(*_RAN, *_CANCELED),
        sees=(printed("ready\n"), logged(_ASKED)),
    ),
    Case(
        id="cancel-deaf",
        section=CANCEL,
        title="An executor ignores SIGTERM: CANCELED is said only when it is gone "
        "(`terminationGracePeriodSeconds`)",
        document=scripts(f"trap '' TERM; {_READY}; {_WAIT}", "echo never"),
        meanwhile=canceled("while it runs", executor_runs),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        exit_codes=(137,),
        reporter="recorder",
        within=_GRACE,
        after=After.ASKED,
        states=(*_RAN, *_CANCELED),
        sees=(no_process("marked"), logged(_ASKED)),
    ),
    Case(
        id="cancel-outputs",
        section=CANCEL,
        title="An output is being sent",
        document=sent("truncate -s 4G /out/it"),
        meanwhile=canceled("while `tof-0` runs", runs("tof-0")),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        exit_codes=(0,),
        reporter="recorder",
        within=_START,
        after=After.ASKED,
        states=(*_RAN, *_CANCELED),
        sees=(nothing_stored(), logged(_ASKED)),
    ),
    Case(
        id="pod-deleted",
        section=OUTSIDE,
        title="Somebody deletes the Pod",
        document=scripts(f"{_READY}; {_WAIT}", "echo never"),
        meanwhile=deleted("pod"),
        state="SYSTEM_ERROR",
        reasons=("PodDeleted",),
        message="Pod <pod> was deleted",
        exit_codes=(143,),
        reporter="controller",
        within=_SOON,
        after=After.ASKED,
        states=_RAN,
        sees=(printed("ready\n"),),
    ),
    Case(
        id="job-deleted",
        section=OUTSIDE,
        title="Somebody deletes the Job",
        document=scripts(f"{_READY}; {_WAIT}", "echo never"),
        meanwhile=deleted("job"),
        state="SYSTEM_ERROR",
        reasons=("JobDeleted",),
        message="the Job was deleted",
        exit_codes=(143,),
        reporter="controller",
        within=_SOON,
        after=After.ASKED,
        states=_RAN,
        sees=(printed("ready\n"),),
    ),
    Case(
        id="deadline",
        section=OUTSIDE,
        title="It takes longer than the site allows",
        document=scripts(f"{_READY}; {_WAIT}", "echo never"),
        meanwhile=deadline(2),
        state="SYSTEM_ERROR",
        reasons=("DeadlineExceeded",),
        message="Pod was active on the node longer than the specified deadline",
        exit_codes=(143,),
        reporter="controller",
        within=_SOON,
        after=After.ASKED,
        states=_RAN,
        sees=(printed("ready\n"),),
    ),
)
