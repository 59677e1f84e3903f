"""The mutations: each takes one handling away, and names the rows of the table that must then fail."""

from collections.abc import Mapping, Sequence

from poiesis_e2e.failures.cases import CASES
from poiesis_e2e.failures.mutation import Edit, Mutation

EXEMPT: Mapping[str, str] = {
    "claim-deleted": "Kubernetes alone keeps a claim that a Pod uses (kubernetes.io/pvc-protection)",
    "kubelet-restarted": "Kubernetes alone leaves containers running while a kubelet restarts",
    "kubelet-away": "Kubernetes alone goes on where it was when a kubelet comes back",
    "api-server-down": "nothing in a Pod needs the API server to go on: there is no code to take away",
}

_RUN_C = "services/helper/src/run.c"
_FACTS = "services/trec/poiesis_trec/facts.py"
_RECORDER = "services/trec/poiesis_trec/recorder.py"
_DECIDE = "services/tctl/poiesis_tctl/decide.py"
_TASKPOD = "services/api/poiesis_api/taskpod.py"
_STATES = "packages/models/poiesis_models/states.py"
_REFUSALS = "packages/models/poiesis_models/refusals.py"
_WEB = "packages/transfer/poiesis_transfer/web.py"
_S3 = "packages/transfer/poiesis_transfer/s3.py"
_FETCH = "packages/transfer/poiesis_transfer/fetch.py"

_TOLD_TO_END = (
    "cancel-obedient",
    "cancel-deaf",
    "cancel-outputs",
    "cancel-by-many",
    "pod-deleted",
    "job-deleted",
    "deadline",
    "drained",
    "drained-preemptible",
    "disk",
    "root-disk",
    "run-directory-full",
    "preempted",
    "preempted-preemptible",
    "kueue-preempted",
    "kueue-stopped",
    "kueue-deactivated-running",
)
_CANCELED_IN_A_POD = (
    "cancel-pulling",
    "cancel-inputs",
    "cancel-obedient",
    "cancel-deaf",
    "cancel-outputs",
    "cancel-between",
    "cancel-by-many",
)
_COMPLAINED = ("not-found", "not-executable", "image-foreign", "stdin-missing", "stdout-unwritable")


def _one(
    name: str,
    takes_away: str,
    file: str,
    old: str,
    new: str,
    *,
    rows: tuple[str, ...],
    spoils: tuple[str, ...] = (),
    late: bool = False,
) -> Mutation:
    edit = Edit(file=file, old=old, new=new)
    return Mutation(name=name, takes_away=takes_away, edits=(edit,), rows=rows, spoils=spoils, late=late)


_EXECUTORS = (
    _one(
        "failure-passed-over",
        "The helper exits with 0 after a failure, so that Kubernetes goes on to the next executor.",
        _RUN_C,
        'go_on = strcmp(options.on_failure, "continue") == 0;',
        "go_on = true;",
        rows=("exit-code",),
        spoils=(
            "exit-code-ignored",
            "failed-with-outputs",
            "recorder-down-at-a-failure",
            "recorder-killed-for-good",
        ),
    ),
    _one(
        "ignore-error-ignored",
        "The Pod's executors do not know of ignore_error, so that Kubernetes aborts.",
        _TASKPOD,
        '*(["--ignore-error"] if executor.ignore_error else []),',
        "",
        rows=("exit-code-ignored",),
        spoils=("out-of-memory-ignored",),
    ),
    _one(
        "no-outputs-of-a-failure",
        "An executor that fails always ends the Pod, outputs or not.",
        _TASKPOD,
        '["continue" if upload else "exit"]',
        '["exit"]',
        rows=("failed-with-outputs",),
        spoils=("executor-and-output",),
    ),
    _one(
        "no-signals",
        "The helper takes an end by signal for an exit.",
        _RUN_C,
        "result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;",
        "result->signal = 0;",
        rows=("signal", "killed"),
        spoils=(
            "filer-killed",
            "out-of-memory-itself",
            "out-of-memory-child",
            "out-of-memory-child-hidden",
            "out-of-memory-ignored",
            *_TOLD_TO_END,
        ),
    ),
    _one(
        "exec-unexplained",
        "The helper does not tell a program that cannot be executed from a process that cannot be had.",
        _RUN_C,
        "if (process < 0 && step == SPAWN_EXEC) {",
        "if (process < 0 && step == SPAWN_EXEC && !argv) {",
        rows=("not-found", "not-executable", "image-foreign"),
    ),
    _one(
        "stdin-optional",
        "The helper runs the process without a stdin that is missing.",
        _RUN_C,
        "    if (streams[0] < 0) {\n",
        '    if (streams[0] < 0 && (streams[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {\n',
        rows=("stdin-missing",),
    ),
    _one(
        "stdout-optional",
        "The helper does not mind that stdout could not be written.",
        _RUN_C,
        "(!handed_over || out_file.failed || err_file.failed)",
        "!handed_over",
        rows=("stdout-unwritable",),
    ),
    _one(
        "start-is-running",
        "The recorder takes a container that could not be started for an executor that failed.",
        _FACTS,
        "if told.reason in _LOST or files.started is None or code == _HELPER_REFUSED:",
        "if told.reason in _LOST:",
        rows=("workdir", "too-little-memory"),
    ),
    _one(
        "out-of-memory-unseen",
        "The helper does not count the kernel's kills.",
        _RUN_C,
        "if (kills_before >= 0 && oom_kills(options.cgroup_root) > kills_before)",
        "if (false)",
        rows=("out-of-memory-itself", "out-of-memory-child", "out-of-memory-child-hidden"),
        spoils=("out-of-memory-ignored",),
    ),
    _one(
        "out-of-memory-ignorable",
        "The helper lets ignore_error hold for out of memory.",
        _RUN_C,
        "    if (result->oom)\n        code = EXIT_OOM; "
        "/* always: reason OOMKilled with exit code 0 wedges the Pod */\n    else if (options.ignore_error)",
        "    if (options.ignore_error)",
        rows=("out-of-memory-ignored",),
    ),
    _one(
        "first-words-kept",
        "The helper keeps the beginning of a flood, not its end.",
        "services/helper/src/log.c",
        "    log->total += size;\n",
        "    log->total += size;\n    if (log->tail_size == log->cap)\n        return;\n",
        rows=("flood",),
    ),
    Mutation(
        name="anything-is-a-file",
        takes_away="The recorder opens whatever stands where a file should.",
        edits=(
            Edit(
                file="services/trec/poiesis_trec/regular.py",
                old="_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY",
                new="_FLAGS = os.O_RDONLY | os.O_CLOEXEC",
            ),
            Edit(
                file="services/trec/poiesis_trec/regular.py",
                old="return _signature(found) if stat.S_ISREG(found.st_mode) else None",
                new="return _signature(found)",
            ),
            Edit(
                file="services/trec/poiesis_trec/regular.py",
                old="if stat.S_ISREG(os.fstat(fd).st_mode):",
                new="if fd >= 0:",
            ),
        ),
        rows=("garbage",),
        spoils=("in-the-way",),
    ),
    _one(
        "forgery-believed",
        "The recorder believes an exit.json while the helper lives.",
        "services/trec/poiesis_trec/rundir.py",
        "return None if held is True else self._exit, gone",
        "return self._exit, gone",
        rows=("forged",),
    ),
    _one(
        "files-only",
        "The recorder does not learn from the Pod's status how a container ended.",
        _FACTS,
        "told = pod.ends.get(name) if pod is not None else None",
        "told = None",
        rows=("in-the-way",),
        spoils=("workdir", "too-little-memory"),
    ),
    _one(
        "background-waited-for",
        "The helper does not end what a process has left behind.",
        _RUN_C,
        "    end_descendants(signals_stop_at() ? HURRIED_MS : END_MS);\n",
        "",
        rows=("background",),
        late=True,
    ),
    _one(
        "no-disk-limit",
        "A task's emptyDir has no limit.",
        _TASKPOD,
        'return {"emptyDir": {"sizeLimit": str(disk_bytes(layout.task.request, config))}}',
        'return {"emptyDir": {}}',
        rows=("disk",),
    ),
    _one(
        "no-root-disk-limit",
        "executors.rootDiskGb is not made into a limit.",
        _TASKPOD,
        "if config.executors.root_disk_gb:",
        "if False:",
        rows=("root-disk",),
    ),
    _one(
        "no-run-limit",
        "The run directories have no limit.",
        _TASKPOD,
        'yield {"name": "run", "emptyDir": {"sizeLimit": str(run_bytes(layout.task.request, config))}}',
        'yield {"name": "run", "emptyDir": {}}',
        rows=("run-directory-full",),
    ),
    _one(
        "stderr-untold",
        "The recorder does not tell what executors write to stderr.",
        "services/trec/poiesis_trec/outbox.py",
        "stderr=stderr[0] if stderr else None,",
        "stderr=None,",
        rows=("volume-full",),
        spoils=_COMPLAINED,
    ),
)

_IMAGES = (
    _one(
        "pulls-for-ever",
        "The controller lets the kubelet try to pull an image for ever.",
        _DECIDE,
        "        return limits.image_pull\n",
        "        return None\n",
        rows=("image-missing", "registry-missing", "image-late", "image-private", "recorder-missing"),
    ),
    _one(
        "names-mend-themselves",
        "The controller waits for an image whose name is malformed.",
        _DECIDE,
        '_AT_ONCE = frozenset({"InvalidImageName"})',
        "_AT_ONCE: frozenset[str] = frozenset()",
        rows=("image-malformed",),
    ),
    _one(
        "configuration-for-ever",
        "The controller waits for ever for a configuration that cannot be had.",
        _DECIDE,
        "return limits.config_error if reason in _CONFIGURATION else None",
        "return None",
        rows=("configuration",),
    ),
    _one(
        "events-untold",
        "The controller does not tell what Kubernetes' events say.",
        "services/tctl/poiesis_tctl/controller.py",
        "[self._pods.run(), self._jobs.run(), self._events.run(), self._reconcile(), ",
        "[self._pods.run(), self._jobs.run(), self._reconcile(), ",
        rows=("image-missing", "recorder-missing", "cancel-unscheduled"),
    ),
)

_DATA = (
    Mutation(
        name="s3-answers-anything",
        takes_away="The filers take whatever an S3 store answers for success.",
        edits=(
            Edit(
                file=_FETCH,
                old="            if answer.status != _OK:\n"
                "                raise self._source.failure(answer)\n"
                "            version =",
                new="            version =",
            ),
            Edit(
                file=_S3,
                old="            if answer.status != _OK:\n"
                "                raise self._failure(what, target, answer)\n"
                "            answer.read()",
                new="            answer.read()",
            ),
        ),
        rows=("input-missing", "input-no-bucket", "output-no-bucket"),
        spoils=("executor-and-output", "input-404", "input-403"),
    ),
    _one(
        "http-answers-anything",
        "The filer takes whatever a web server answers for the input.",
        _FETCH,
        "            if answer.status != _OK:\n"
        "                raise self._source.failure(answer)\n"
        "            version =",
        "            version =",
        rows=("input-404", "input-403"),
        spoils=("input-missing", "input-no-bucket"),
    ),
    _one(
        "filers-once",
        "A filer is not started again, though it says that its failure may pass.",
        _TASKPOD,
        "    if attempts == 0:\n",
        "    if attempts >= 0:\n",
        rows=("input-refused", "input-unknown-host", "input-truncated"),
        spoils=("filer-killed", "cancel-inputs"),
    ),
    _one(
        "crash-is-final",
        "A filer that crashes is not started again.",
        _TASKPOD,
        'str(attempts), "--retry-killed"]',
        "str(attempts)]",
        rows=("filer-killed",),
    ),
    _one(
        "tls-unexplained",
        "The filer does not tell a failure of TLS from one of the network.",
        _WEB,
        '    (ssl.SSLError, Permanent, "TLS: the server\'s certificate or protocol is not accepted"),\n',
        "",
        rows=("input-tls",),
    ),
    Mutation(
        name="full-unexplained",
        takes_away="The filers do not tell that a volume is full, neither before nor from other errors.",
        edits=(
            Edit(
                file="packages/transfer/poiesis_transfer/errors.py",
                old="_FULL = {errno.ENOSPC, errno.EDQUOT}",
                new="_FULL = {errno.EDQUOT}",
            ),
            Edit(
                file="packages/transfer/poiesis_transfer/room.py",
                old="            if not within_limit or count > _free(directory) - self._coming:\n"
                "                raise volume_full(path)\n",
                new="",
            ),
        ),
        rows=("volume-full-inputs",),
    ),
    _one(
        "second-failure-untold",
        "Of an executor that failed and an output that could not be sent, only the first is told.",
        _STATES,
        "    if facts.trouble is not None:\n        message =",
        "    if False:\n        message =",
        rows=("executor-and-output",),
    ),
)

_LOST_RECORDERS = (
    "recorder-killed",
    "recorder-killed-between",
    "recorder-killed-before-outputs",
    "recorder-killed-before-the-ack",
)
_THE_RECORDER = (
    _one(
        "told-once-only",
        "Postgres refuses a line of system_logs that it has, so a new recorder cannot tell everything again.",
        "migrations/0002_recorder.sql",
        "    ON CONFLICT (task_id, attempt, source, key) DO NOTHING;",
        "    ;",
        rows=_LOST_RECORDERS,
        spoils=(
            "recorder-killed-at-first",
            "recorder-killed-before-the-end",
            "recorder-killed-for-good",
            "recorder-killed-with-it",
            "recorder-down-at-a-failure",
            "recorder-without-role",
            "recorder-without-token",
        ),
    ),
    _one(
        "gate-once",
        "The hook that lets the other containers start fails when it is run again.",
        "services/helper/src/install.c",
        "if (!is_installed(target) && copy_file(SELF, target, 0755) != 0) {",
        "if (is_installed(target) || copy_file(SELF, target, 0755) != 0) {",
        rows=("recorder-killed-at-first",),
        # Whichever Pod has its hook run again; one row is left to show that others go on.
        spoils=tuple(case.id for case in CASES if case.id != "signal"),
        late=True,
    ),
    _one(
        "ack-first",
        "The recorder lets the Pod end before Postgres has the task's end.",
        _RECORDER,
        "            if draft is not None:\n                answer =",
        "            if draft is not None:\n"
        "                if (end := draft.report.ending) is not None:\n"
        "                    write_ack(self._config.ack_file, complete=end.state is TesState.COMPLETE)\n"
        "                answer =",
        rows=("recorder-killed-before-the-end",),
        spoils=("recorder-killed-before-the-ack",),
    ),
    _one(
        "waits-for-its-role",
        "The recorder tells nothing until it may look at its Pod.",
        _RECORDER,
        "        while True:\n            self._changed.clear()\n",
        "        while self._watch is not None and self._watch.view is None:\n"
        "            await asyncio.sleep(0.05)\n"
        "        while True:\n            self._changed.clear()\n",
        rows=("recorder-without-role", "recorder-without-token"),
    ),
    _one(
        "starts-for-ever",
        "The controller lets Kubernetes restart a recorder that cannot start for ever.",
        _DECIDE,
        "if status is None or restarts_of_recorder(pod) < CRASHES or gate_is_open(pod):",
        "if status is None or restarts_of_recorder(pod) >= 0:",
        rows=("recorder-never-starts",),
    ),
    _one(
        "pods-end-unseen",
        "The controller does not tell how a Pod ended whose recorder has not.",
        _DECIDE,
        "    if phase(pod) in ENDED_PHASES:\n        yield",
        "    if phase(pod) in ENDED_PHASES and False:\n        yield",
        rows=("recorder-killed-for-good",),
        spoils=(
            "pod-deleted",
            "job-deleted",
            "deadline",
            "drained",
            "drained-preemptible",
            "disk",
            "root-disk",
            "run-directory-full",
            "recorder-killed-with-it",
            "rebooted",
            "node-deleted",
            "preempted",
            "preempted-preemptible",
        ),
    ),
    _one(
        "pause-waited-for",
        "The controller does not tell the end of a Pod that only waits for a lost recorder's word.",
        _DECIDE,
        "        yield from _untold(task, pod, limits)\n",
        "",
        rows=("recorder-lost", "recorder-lost-failed"),
    ),
    _one(
        "recorder-not-awaited",
        "A container that failed does not wait for a recorder that is down.",
        _RUN_C,
        "    if (code != 0 && recorded)\n        await_recorder();\n",
        "    (void)recorded;\n",
        rows=("recorder-down-at-a-failure",),
    ),
    _one(
        "executors-untold",
        "The controller does not add what the recorder has not said about executors.",
        _DECIDE,
        "executors=executor_rows(pod), note=_note(pod))",
        "executors=(), note=_note(pod))",
        rows=("recorder-killed-with-it",),
        spoils=("recorder-killed-for-good",),
    ),
)

_REFUSED = (
    _one(
        "nothing-is-refused-for-good",
        "The api tries everything again that Kubernetes refuses.",
        "services/api/poiesis_api/refusals.py",
        "    if not isinstance(error, Refused):\n",
        "    if True:\n",
        rows=("job-refused", "claim-refused"),
        spoils=("webhook-of-old-job",),
    ),
    _one(
        "webhook-unexplained",
        "An API server's words are told as they are, though they do not lead to the cause.",
        _REFUSALS,
        'return f"{message}. That is, {OLD_WEBHOOK}" if _NOT_A_SIDECAR in message else message',
        "return message",
        rows=("webhook-of-old-job", "webhook-of-old-pod"),
    ),
    _one(
        "no-pod-is-refused-for-good",
        "The controller lets the Job controller try every Pod again.",
        _REFUSALS,
        "return _FINAL.search(message) is not None",
        "return False",
        rows=("pod-refused", "pod-security", "limit-range"),
        spoils=("webhook-of-old-pod",),
    ),
    _one(
        "everything-is-refused-for-good",
        "What Kubernetes does not take is not tried again.",
        _REFUSALS,
        "return _FINAL.search(message) is not None",
        "return True",
        rows=("job-quota", "pod-quota", "job-webhook"),
        spoils=("cancel-refused",),
    ),
)

_CANCELED = (
    Mutation(
        name="orphans",
        takes_away="A Job is deleted without its Pod.",
        edits=(
            Edit(
                file="services/api/poiesis_api/kube.py",
                old='"propagationPolicy": "Background"}',
                new='"propagationPolicy": "Orphan"}',
            ),
            Edit(
                file="services/tctl/poiesis_tctl/kube.py",
                old='"propagationPolicy": "Background",',
                new='"propagationPolicy": "Orphan",',
            ),
        ),
        rows=("cancel-unscheduled", "kueue-canceled"),
        spoils=(
            *_CANCELED_IN_A_POD,
            "claim-refused",
            "webhook-of-old-job",
            "webhook-of-old-pod",
            "pod-refused",
            "pod-security",
            "limit-range",
            "kueue-deactivated-waiting",
            "kueue-deactivated-running",
            "unschedulable",
            "claim-unbound",
        ),
    ),
    _one(
        "cancel-unasked",
        "A recorder that is told to end does not ask whether that is a cancel.",
        _RECORDER,
        "            self._must_ask = True\n",
        "",
        rows=("cancel-pulling",),
        spoils=_CANCELED_IN_A_POD,
    ),
    _one(
        "between-is-running",
        "The recorder takes a Pod that is ended between two containers for one that goes on.",
        _FACTS,
        "    if latest.last or situation.shutting_down:\n",
        "    if latest.last:\n",
        rows=("cancel-between",),
        spoils=_CANCELED_IN_A_POD,
    ),
    Mutation(
        name="patience-kept",
        takes_away="The helper goes on with a filer that fails for a while, whoever tells it to end.",
        edits=(
            Edit(
                file=_RUN_C,
                old=" || retry >= options.retry_attempts || signals_stop_at())",
                new=" || retry >= options.retry_attempts)",
            ),
            Edit(
                file=_RUN_C,
                old="(left = until - monotonic_ms()) > 0 && !signals_stop_at();)\n"
                "            if (wait_and_move(left))\n                signals_take(0);\n"
                "        if (signals_stop_at())\n            return;\n",
                new="(left = until - monotonic_ms()) > 0;)\n"
                "            if (wait_and_move(left))\n                signals_take(0);\n",
            ),
        ),
        rows=("cancel-inputs",),
        late=True,
    ),
    _one(
        "signals-kept",
        "The helper does not pass signals on, so that only SIGKILL ends a process.",
        "services/helper/src/signals.c",
        "        if (group > 0)\n            kill(-group, (int)info.ssi_signo);\n",
        "        (void)group;\n",
        rows=("cancel-outputs",),
        spoils=(*_TOLD_TO_END, "cancel-inputs"),
        late=True,
    ),
    _one(
        "obedience-is-success",
        "An executor that was told to end and exits with 0 shows 0.",
        "packages/models/poiesis_models/runfiles.py",
        "return SIGTERM_EXIT if self.term and self.exit_code == 0 else self.exit_code",
        "return self.exit_code",
        rows=("cancel-obedient",),
    ),
    Mutation(
        name="canceled-at-once",
        takes_away="The recorder tells the end of a canceled task while its executor still runs.",
        edits=(
            Edit(
                file=_FACTS,
                old="return not (situation.shutting_down and latest.files.helper_gone)",
                new="return not situation.shutting_down",
            ),
        ),
        rows=("cancel-deaf",),
        spoils=("cancel-obedient", "cancel-outputs", "cancel-inputs", "cancel-by-many"),
    ),
    Mutation(
        name="canceled-once-only",
        takes_away="A cancel does not look whether there was one before.",
        edits=(
            Edit(
                file="services/api/poiesis_api/tasks_db.py",
                old="AND ended_at IS NULL AND cancel_requested_at IS NULL\n    RETURNING",
                new="AND ended_at IS NULL\n    RETURNING",
            ),
            Edit(
                file="services/api/poiesis_api/tasks_db.py",
                old="      FROM requested\n    ON CONFLICT DO NOTHING\n",
                new="      FROM requested\n",
            ),
        ),
        rows=("cancel-by-many",),
        spoils=("cancel-unscheduled", "cancel-refused", *_CANCELED_IN_A_POD[:-1]),
    ),
    _one(
        "unmade-unfinished",
        "The api does not end a canceled task that never had a Job.",
        "services/api/poiesis_api/submitter.py",
        "        await queue_db.finish_unsubmitted(self._pool, task_id)\n",
        "",
        rows=("cancel-refused",),
    ),
)

_OUTSIDE = (
    _one(
        "told-to-end-is-failed",
        "The recorder takes what the platform has ended for an executor's own failure.",
        _FACTS,
        "            by_platform=record.term,\n",
        "            by_platform=False,\n",
        rows=("pod-deleted", "job-deleted", "deadline"),
        spoils=_TOLD_TO_END,
    ),
    _one(
        "disruption-unseen",
        "The controller does not see why Kubernetes took a Pod away.",
        "services/tctl/poiesis_tctl/podfacts.py",
        "disruption=None if done else _disruption(pod),",
        "disruption=None,",
        rows=("drained",),
        spoils=("drained-preemptible",),
    ),
    _one(
        "preemptible-ignored",
        "A task that is preemptible ends as any other.",
        _STATES,
        "TesState.PREEMPTED if facts.preemptible else TesState.SYSTEM_ERROR",
        "TesState.SYSTEM_ERROR",
        rows=("drained-preemptible",),
    ),
)

_NODES = (
    _one(
        "lost-unexplained",
        "The controller does not see that a kubelet has lost a container.",
        "services/tctl/poiesis_tctl/podfacts.py",
        "        or next((_lost_sight(end) for end in planned if _is_unknown(end)), None)\n",
        "",
        rows=("rebooted",),
    ),
    _one(
        "stalled-for-ever",
        "The controller waits for ever for a Pod in which everything is dead.",
        _DECIDE,
        "        yield from _stalled(task, pod, limits)\n",
        "",
        rows=("rebooted-pulling-first", "rebooted-pulling-second"),
    ),
    _one(
        "silence-for-ever",
        "The controller waits for ever for a node's word on a Pod that was deleted.",
        _DECIDE,
        "    elif is_deleted(pod):\n        yield from _lingering(task, pod, limits)\n",
        "    elif is_deleted(pod):\n        return\n",
        rows=("node-gone",),
    ),
    _one(
        "collected-is-evicted",
        "The controller takes the loss of a node for an eviction.",
        "services/tctl/poiesis_tctl/podfacts.py",
        '_NODE_LOST = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})',
        '_NODE_LOST = frozenset({"DeletionByTaintManager"})',
        rows=("node-deleted",),
    ),
    _one(
        "unschedulable-for-ever",
        "The controller waits for a node for ever.",
        _DECIDE,
        "    if limits.unschedulable and not (pod",
        "    if False and not (pod",
        rows=("unschedulable", "claim-unbound"),
    ),
    _one(
        "unmountable-for-ever",
        "The controller waits for a volume to be mounted for ever.",
        _DECIDE,
        "    if limits.unschedulable and unready",
        "    if False and unready",
        rows=("volume-unmountable",),
    ),
    _one(
        "secret-required",
        "A Pod waits for ever for a filer's Secret.",
        "services/api/poiesis_api/taskpod.py",
        '"secretName": filer.secret_name, "optional": True}',
        '"secretName": filer.secret_name}',
        rows=("input-no-secret",),
    ),
    _one(
        "preemption-unseen",
        "The controller does not see that a Pod had to make room.",
        "services/tctl/poiesis_tctl/podfacts.py",
        "disruption=None if done else _disruption(pod),",
        "disruption=None,",
        rows=("preempted", "preempted-preemptible"),
        spoils=("drained", "drained-preemptible"),
    ),
)

_KUEUE = (
    _one(
        "queue-untold",
        "The controller does not tell what Kueue says of a task that waits.",
        _DECIDE,
        "elif workload is not None and (wait := workloads.waits_for(workload)) is not None:",
        "elif (wait := None) is not None:",
        rows=("kueue-full",),
        spoils=("kueue-deactivated-waiting", "kueue-canceled"),
    ),
    _one(
        "suspension-unseen",
        "The controller does not close the attempt of a Job that was suspended.",
        _DECIDE,
        "    if view.gone_pod is not None or task.state in {TesState.INITIALIZING, TesState.RUNNING}:\n"
        "        said =",
        "    if False:\n        said =",
        rows=("kueue-preempted", "kueue-stopped"),
    ),
    _one(
        "deactivation-unseen",
        "The controller does not see that a Workload is not to run.",
        _DECIDE,
        "    if workload is not None and task.submitted and (why :=",
        "    if False and workload is not None and (why :=",
        rows=("kueue-deactivated-waiting", "kueue-deactivated-running"),
    ),
)

MUTATIONS: Sequence[Mutation] = (
    *_EXECUTORS,
    *_IMAGES,
    *_DATA,
    *_THE_RECORDER,
    *_REFUSED,
    *_CANCELED,
    *_OUTSIDE,
    *_NODES,
    *_KUEUE,
)
