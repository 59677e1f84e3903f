"""The mutations: each removes the handling of a failure, and names the rows of the table that must fail."""

from collections.abc import Mapping, Sequence

from poiesis_e2e.failures.cases import CASES
from poiesis_e2e.failures.mutation import Edit, Mutation

EXEMPT: Mapping[str, str] = {
    "claim-deleted": "Kubernetes alone keeps a claim that a Pod uses (kubernetes.io/pvc-protection)",
    "kubelet-restarted": "Kubernetes alone leaves containers running while a kubelet restarts",
    "kubelet-away": "Kubernetes alone continues where it was when a kubelet comes back",
    "api-server-down": "nothing in a Pod needs the API server to continue: there is no code to remove",
    "gateway-flooded": "one Pod of the lab cannot send enough; tests of the gateway cover its limits",
}

_SINK = "services/trec/poiesis_trec/gateway_sink.py"
_GATEWAY = "services/gateway/poiesis_gateway"
_RUN_C = "services/helper/src/run.c"
_FACTS = "services/trec/poiesis_trec/facts.py"
_REGULAR = "services/trec/poiesis_trec/regular.py"
_RECORDER = "services/trec/poiesis_trec/recorder.py"
_DECIDE = "services/tctl/poiesis_tctl/decide.py"
_PODFACTS = "services/tctl/poiesis_tctl/podfacts.py"
_WORKLOADS = "services/tctl/poiesis_tctl/workloads.py"
_TASKPOD = "services/api/poiesis_api/taskpod"
_STATES = "packages/models/poiesis_models/states.py"
_REFUSALS = "packages/models/poiesis_models/refusals.py"
_TRANSFER = "packages/transfer/poiesis_transfer"

_OOM = "out-of-memory-itself out-of-memory-child out-of-memory-child-hidden"
_CANCELED_IN_A_POD = (
    "cancel-pulling cancel-inputs cancel-obedient cancel-deaf cancel-outputs cancel-between cancel-by-many"
)
_DISRUPTED = "drained drained-preemptible disk root-disk run-directory-full preempted preempted-preemptible"
_DELETED = "pod-deleted job-deleted deadline"
_WITHOUT_GATEWAY = (
    "gateway-killed gateway-killed-before-the-end gateway-unreachable gateway-unavailable gateway-impostor"
)
_TOLD_TO_END = (
    f"cancel-obedient cancel-deaf cancel-outputs cancel-by-many {_DELETED} {_DISRUPTED} "
    "kueue-preempted kueue-stopped kueue-deactivated-running"
)

_REJECT_KNOWN_LINE = """\
IF EXISTS (
    SELECT FROM system_log l, task_log t, jsonb_to_recordset(p_report -> 'system_logs') AS s (key text)
     WHERE l.task_id = p_task AND l.source = 'recorder' AND l.key = s.key
       AND t.task_id = p_task AND t.attempt = l.attempt AND t.pod_uid = p_report ->> 'pod_uid') THEN
    RAISE EXCEPTION 'a line is known' USING ERRCODE = 'unique_violation';
END IF;"""


def _mutation(
    name: str, effect: str, *edits: tuple[str, ...], rows: str, spoils: str = "", late: bool = False
) -> Mutation:
    return Mutation(
        name=name,
        effect=effect,
        edits=tuple(Edit(where=where, code="\n".join(lines)) for where, *lines in edits),
        rows=tuple(rows.split()),
        spoils=tuple(spoils.split()),
        late=late,
    )


MUTATIONS: Sequence[Mutation] = (
    # Executors
    _mutation(
        "failure-passed-over",
        "The helper exits with 0 after a failure, so Kubernetes starts the next executor.",
        (f"{_RUN_C}:check_options", 'options.on_failure = "continue";'),
        rows="exit-code",
        spoils="exit-code-ignored failed-with-outputs recorder-down-at-a-failure recorder-killed-for-good",
    ),
    _mutation(
        "ignore-error-ignored",
        "The helper ignores ignore_error, so Kubernetes aborts the Pod.",
        (f"{_RUN_C}:check_options", "options.ignore_error = false;"),
        rows="exit-code-ignored",
        spoils="out-of-memory-ignored",
    ),
    _mutation(
        "no-outputs-of-a-failure",
        "An executor that fails always ends the Pod, even if the task has outputs.",
        (f"{_TASKPOD}/containers.py:_options", 'values = ["exit"] if name == "--on-failure" else values'),
        rows="failed-with-outputs",
        spoils="executor-and-output",
    ),
    _mutation(
        "no-signals",
        "The helper treats death by a signal as exit code 0.",
        (f"{_RUN_C}:ending_signal", "return 0;"),
        rows="signal killed",
        spoils=f"filer-killed {_OOM} out-of-memory-ignored {_TOLD_TO_END}",
    ),
    _mutation(
        "exec-unexplained",
        "The helper does not distinguish a program that cannot be executed from a failed fork.",
        (f"{_RUN_C}:exec_failed", "return EXIT_NO_PROCESS;"),
        rows="not-found not-executable image-foreign",
    ),
    _mutation(
        "stdin-optional",
        "The helper runs the process without a stdin file that is missing.",
        (
            f"{_RUN_C}:open_stdin",
            "if (access(options.in, F_OK) != 0)",
            '    options.in = "/dev/null";',
        ),
        rows="stdin-missing",
    ),
    _mutation(
        "stdout-optional",
        "The helper ignores that stdout could not be written.",
        (f"{_RUN_C}:hand_over", "out_file.failed = err_file.failed = false;"),
        rows="stdout-unwritable",
    ),
    _mutation(
        "start-is-running",
        "The recorder treats a container that could not be started as an executor that failed.",
        (f"{_FACTS}:_outcome", "files = replace(files, started=files.started or Started(start_ns=1))"),
        rows="workdir too-little-memory",
    ),
    _mutation(
        "out-of-memory-unseen",
        "The helper does not count out-of-memory kills.",
        (f"{_RUN_C}:out_of_memory", "return false;"),
        rows=_OOM,
        spoils="out-of-memory-ignored",
    ),
    _mutation(
        "out-of-memory-ignorable",
        "The helper applies ignore_error to an out-of-memory kill.",
        (f"{_RUN_C}:decide", "if (options.ignore_error)", "    return 0;"),
        rows="out-of-memory-ignored",
    ),
    _mutation(
        "outputs-of-the-killed-unawaited",
        "The recorder records the outcome of a killed executor before its outputs.",
        (f"{_FACTS}:still_rescuing", "return False"),
        rows="container-killed out-of-memory-ignored",
    ),
    _mutation(
        "first-words-kept",
        "The helper keeps the beginning of long output, not its end.",
        (
            "services/helper/src/log.c:keep_tail",
            "if (log->tail_size == log->cap) {",
            "    log->total += size;",
            "    return;",
            "}",
        ),
        rows="flood",
    ),
    _mutation(
        "anything-is-a-file",
        "The recorder opens anything that has the name of a file.",
        (f"{_REGULAR}:_FLAGS", "_FLAGS = os.O_RDONLY | os.O_CLOEXEC"),
        (f"{_REGULAR}:_is_regular", "return True"),
        rows="garbage",
        spoils="in-the-way",
    ),
    _mutation(
        "forgery-believed",
        "The recorder believes an exit.json while the helper lives.",
        (
            "services/trec/poiesis_trec/rundir.py:RunDirectory._exit_record",
            "if self._exit is not None:",
            "    return self._exit, False",
        ),
        rows="forged",
    ),
    _mutation(
        "helper-traceable",
        "An executor may trace the helper.",
        (f"{_RUN_C}:forbid_tracing", "return;"),
        rows="forged-by-ptrace",
    ),
    _mutation(
        "files-only",
        "The recorder does not learn from the Pod's status how a container ended.",
        (f"{_FACTS}:_end", "pod = None"),
        rows="in-the-way",
        spoils="workdir too-little-memory",
    ),
    _mutation(
        "background-waited-for",
        "The helper does not end the processes that an executor has left behind.",
        ("services/helper/src/processes.c:end_descendants", "return;"),
        rows="background",
        late=True,
    ),
    _mutation(
        "no-disk-limit",
        "A task's emptyDir has no limit.",
        (
            f"{_TASKPOD}/volumes.py:_task_volume",
            'if config.volume.type == "emptyDir":',
            '    return {"emptyDir": {}}',
        ),
        rows="disk",
    ),
    _mutation(
        "no-root-disk-limit",
        "config.executors.rootDiskGb does not become a limit.",
        (
            f"{_TASKPOD}/containers.py:executor_resources",
            "config = config.model_copy(update={",
            '    "executors": config.executors.model_copy(update={"root_disk_gb": 0})',
            "})",
        ),
        rows="root-disk",
    ),
    _mutation(
        "no-run-limit",
        "The run directories have no limit.",
        (f"{_TASKPOD}/volumes.py:_run_volume", 'return {"emptyDir": {}}'),
        rows="run-directory-full",
    ),
    _mutation(
        "stderr-untold",
        "The recorder does not report what executors write to stderr.",
        (
            "services/trec/poiesis_trec/outbox.py:_executor",
            "texts = {stream: text for stream, text in texts.items() if stream[1] != STDERR}",
        ),
        rows="volume-full",
        spoils="not-found not-executable image-foreign stdin-missing stdout-unwritable",
    ),
    # Images
    _mutation(
        "pulls-forever",
        "The controller lets the kubelet retry an image pull indefinitely.",
        (f"{_DECIDE}:_IMAGE", "_IMAGE = frozenset()"),
        rows="image-missing registry-missing image-late image-private recorder-missing",
    ),
    _mutation(
        "configuration-forever",
        "The controller waits indefinitely for a container whose configuration is invalid.",
        (f"{_DECIDE}:_CONFIGURATION", "_CONFIGURATION = frozenset()"),
        rows="configuration",
    ),
    _mutation(
        "events-untold",
        "The controller does not record Kubernetes' events.",
        ("services/tctl/poiesis_tctl/eventlog.py:EventLog.run", "return"),
        rows="image-missing recorder-missing cancel-unscheduled",
    ),
    # Data
    _mutation(
        "s3-answers-anything",
        "The filers take any response of an S3 store for success.",
        (f"{_TRANSFER}/fetch.py:_Transfer._check_status", "return"),
        (f"{_TRANSFER}/s3.py:S3Store._check_status", "return"),
        rows="input-missing input-no-bucket output-no-bucket",
        spoils="executor-and-output input-404 input-403",
    ),
    _mutation(
        "http-answers-anything",
        "The filer takes any response of a web server for the input.",
        (f"{_TRANSFER}/fetch.py:_Transfer._check_status", "return"),
        rows="input-404 input-403",
        spoils="input-missing input-no-bucket",
    ),
    _mutation(
        "filers-once",
        "A filer is not started again after a retryable failure.",
        (f"{_TASKPOD}/containers.py:_retries", "return []"),
        rows="input-refused input-unknown-host input-truncated",
        spoils="filer-killed cancel-inputs",
    ),
    _mutation(
        "crash-is-final",
        "A filer that crashes is not started again.",
        (f"{_RUN_C}:may_pass", "options.retry_killed = false;"),
        rows="filer-killed",
    ),
    _mutation(
        "tls-unexplained",
        "The filer reports a TLS failure as a failure of the network.",
        (f"{_TRANSFER}/web.py:_converted", "error = OSError() if isinstance(error, ssl.SSLError) else error"),
        rows="input-tls",
    ),
    _mutation(
        "full-unexplained",
        "The filers do not detect that a volume is full, neither in advance nor from the error.",
        (f"{_TRANSFER}/errors.py:_FULL", "_FULL = frozenset()"),
        (f"{_TRANSFER}/free_space.py:FreeSpace.take", "self._limit = None"),
        (f"{_TRANSFER}/free_space.py:_free", 'return float("inf")'),
        rows="volume-full-inputs",
    ),
    _mutation(
        "second-failure-untold",
        "If an executor fails and then an output cannot be sent, only the first is reported.",
        (f"{_STATES}:_executor_error", "facts = replace(facts, failure=None)"),
        rows="executor-and-output",
    ),
    # The recorder
    _mutation(
        "known-line-rejected",
        "Postgres rejects a known line of system_logs, so a restarted recorder cannot report again.",
        ("migrations/functions/record_report.sql:record_report", _REJECT_KNOWN_LINE),
        rows="recorder-killed recorder-killed-between "
        "recorder-killed-before-outputs recorder-killed-before-the-ack gateway-killed-before-the-response",
        spoils=f"{_WITHOUT_GATEWAY} recorder-killed-at-first recorder-killed-before-the-end "
        "recorder-killed-for-good recorder-killed-with-it recorder-down-at-a-failure "
        "recorder-without-role recorder-without-token",
    ),
    _mutation(
        "gate-once",
        "The hook that lets the other containers start fails when it runs again.",
        (
            "services/helper/src/install.c:is_installed",
            "if (stat(path, &(struct stat){0}) == 0)",
            "    exit(1);",
        ),
        rows="recorder-killed-at-first",
        # The hook may run again in any Pod; one row is left as the control.
        spoils=" ".join(case.id for case in CASES if case.id != "signal"),
        late=True,
    ),
    _mutation(
        "ack-first",
        "The recorder lets the Pod end before Postgres has the task's outcome.",
        (
            f"{_RECORDER}:Recorder._send",
            "if (outcome := pending.report.ending) is not None:",
            "    write_ack(self._config.ack_file, complete=outcome.state is TesState.COMPLETE)",
        ),
        rows="recorder-killed-before-the-end",
        spoils="recorder-killed-before-the-ack",
    ),
    _mutation(
        "waits-for-its-role",
        "The recorder reports nothing until it may read its Pod.",
        (
            f"{_RECORDER}:Recorder.record",
            "while self._status.view is None:",
            "    await asyncio.sleep(0.05)",
        ),
        rows="recorder-without-role recorder-without-token",
    ),
    _mutation(
        "starts-forever",
        "The controller lets Kubernetes restart a recorder that cannot start indefinitely.",
        (f"{_DECIDE}:_recorder_down", "return"),
        rows="recorder-never-starts",
    ),
    _mutation(
        "pods-end-unseen",
        "The controller does not record the outcome of a Pod that ended without its recorder's report.",
        (f"{_DECIDE}:_with_pod", "if phase(pod) in ENDED_PHASES:", "    return"),
        rows="recorder-killed-for-good",
        spoils=f"{_DELETED} {_DISRUPTED} recorder-killed-with-it rebooted node-deleted",
    ),
    _mutation(
        "pause-waited-for",
        "The controller does not record the outcome of a Pod that only waits for a lost recorder.",
        (f"{_DECIDE}:_recorder_lost", "return"),
        rows="recorder-lost recorder-lost-failed",
    ),
    _mutation(
        "recorder-not-awaited",
        "A container that failed does not wait for a recorder that is down.",
        (f"{_RUN_C}:await_recorder", "return;"),
        rows="recorder-down-at-a-failure",
    ),
    _mutation(
        "executors-untold",
        "The controller does not add the executor logs that the recorder has not reported.",
        (f"{_PODFACTS}:executor_reports", "return ()"),
        rows="recorder-killed-with-it",
        spoils="recorder-killed-for-good",
    ),
    # The gateway
    _mutation(
        "gateway-awaited-once",
        "The recorder does not repeat a report soon if the gateway did not answer.",
        (
            f"{_SINK}:GatewaySink.record",
            "try:",
            "    return _result(*await self._exchange(report.to_json().encode()))",
            "except (HttpError, OSError):",
            '    raise ReportRefused("no answer") from None',
        ),
        rows="gateway-killed gateway-killed-before-the-end gateway-killed-before-the-response "
        "gateway-unreachable",
        spoils="gateway-impostor gateway-flooded",
        late=True,
    ),
    _mutation(
        "any-certificate",
        "The recorder does not verify the certificate of the gateway.",
        (
            f"{_SINK}:GatewaySink._connect",
            "self._authorization = bearer(self._token_file.read_text().strip())",
            "self._connection = await Connection.open(",
            "    self._gateway.host, self._gateway.port, ssl._create_unverified_context()",
            ")",
            "return self._connection",
        ),
        rows="gateway-impostor",
    ),
    _mutation(
        "any-token",
        "The gateway and Postgres accept a report with any token.",
        (
            f"{_GATEWAY}/reports_db.py:ReportsDb.access",
            "return Result(",
            "    response=ReportResponse(state=TesState.RUNNING, cancel_requested=False, ended=False),",
            "    closed=False,",
            ")",
        ),
        (
            "migrations/functions/gateway_report.sql:gateway_report",
            "UPDATE task SET recorder_token_hash = sha256(convert_to(p_token, 'UTF8')) WHERE id = p_task;",
        ),
        rows="forged-by-report",
    ),
    _mutation(
        "certificate-once",
        "The gateway reads its certificate only when it starts.",
        (f"{_GATEWAY}/tls.py:Certificate.reload", "return"),
        rows="gateway-certificate-renewed",
        spoils="gateway-impostor",
    ),
    _mutation(
        "unavailable-is-malformed",
        "The gateway rejects a report as malformed if Postgres cannot store it now.",
        (
            f"{_GATEWAY}/reports_db.py:_of_postgres",
            'return MalformedReport("the report cannot be stored")',
        ),
        rows="gateway-unavailable",
        spoils="gateway-killed-before-the-end recorder-killed-before-the-end",
        late=True,
    ),
    # Refused by Kubernetes
    _mutation(
        "nothing-is-refused-for-good",
        "The api retries every object that Kubernetes rejects.",
        ("services/api/poiesis_api/refusals.py:is_retryable", "return True"),
        rows="job-refused claim-refused",
        spoils="webhook-of-old-job",
    ),
    _mutation(
        "webhook-unexplained",
        "The API server's message is reported as it is, although it does not lead to the cause.",
        (f"{_REFUSALS}:explained", "return message"),
        rows="webhook-of-old-job webhook-of-old-pod",
    ),
    _mutation(
        "no-pod-is-refused-for-good",
        "The controller lets the Job controller retry every Pod.",
        (f"{_REFUSALS}:is_permanent", "return False"),
        rows="pod-refused pod-security limit-range",
        spoils="webhook-of-old-pod",
    ),
    _mutation(
        "everything-is-refused-for-good",
        "An object that Kubernetes rejects is not retried.",
        (f"{_REFUSALS}:is_permanent", "return True"),
        rows="job-quota pod-quota job-webhook",
        spoils="cancel-refused",
    ),
    # Canceled
    _mutation(
        "orphans",
        "A Job is deleted without its Pod.",
        (
            "packages/kube/poiesis_kube/client.py:Client.request",
            'if body and "propagationPolicy" in body:',
            '    body = {**body, "propagationPolicy": "Orphan"}',
        ),
        rows="cancel-unscheduled kueue-canceled",
        spoils=f"{_CANCELED_IN_A_POD} claim-refused webhook-of-old-job webhook-of-old-pod pod-refused "
        "pod-security limit-range kueue-deactivated-waiting kueue-deactivated-running unschedulable "
        "claim-unbound",
    ),
    _mutation(
        "cancel-unasked",
        "A recorder that gets SIGTERM does not ask whether the task was canceled.",
        (f"{_RECORDER}:Recorder._observe", "self._cancel_check_due = False"),
        rows="cancel-pulling",
        spoils=_CANCELED_IN_A_POD,
    ),
    _mutation(
        "between-is-running",
        "The recorder treats a Pod that is ended between two containers as one that continues.",
        (
            f"{_FACTS}:_running",
            "if [one.over for one in known if one.seen][-1:] == [True]:",
            "    observation = replace(observation, shutting_down=False)",
        ),
        rows="cancel-between",
        spoils=_CANCELED_IN_A_POD,
    ),
    _mutation(
        "patience-kept",
        "The helper continues to retry a filer after a stop signal.",
        (f"{_RUN_C}:may_start_again", "return true;"),
        rows="cancel-inputs",
        late=True,
    ),
    _mutation(
        "signals-kept",
        "The helper does not forward signals, so only SIGKILL ends a process.",
        ("services/helper/src/signals.c:forward", "return;"),
        rows="cancel-outputs",
        spoils=f"{_TOLD_TO_END} cancel-inputs",
        late=True,
    ),
    _mutation(
        "obedience-is-success",
        "An executor that exits with 0 after SIGTERM shows exit code 0.",
        ("packages/models/poiesis_models/runfiles.py:ExitRecord.tes_exit_code", "return self.exit_code"),
        rows="cancel-obedient",
    ),
    _mutation(
        "canceled-at-once",
        "The recorder reports the outcome of a canceled task while its executor still runs.",
        (
            f"{_FACTS}:_running",
            "known = [replace(one, files=replace(one.files, helper_gone=True)) for one in known]",
        ),
        rows="cancel-deaf",
        spoils="cancel-obedient cancel-outputs cancel-inputs cancel-by-many",
    ),
    _mutation(
        "canceled-once-only",
        "The api rejects a second cancel of a task.",
        ("services/api/poiesis_api/tasks_db.py:_cancel_again", "return Cancel.NOT_THEIRS"),
        rows="cancel-by-many",
        spoils=f"cancel-unscheduled cancel-refused {_CANCELED_IN_A_POD}",
    ),
    _mutation(
        "unmade-unfinished",
        "The api does not end a canceled task that never had a Job.",
        ("services/api/poiesis_api/queue_db.py:finish_unsubmitted", "return"),
        rows="cancel-refused",
    ),
    # From outside
    _mutation(
        "told-to-end-is-failed",
        "The recorder treats an executor that the platform ended as one that failed.",
        (
            f"{_FACTS}:_end",
            "if (ended := files.exit) is not None:",
            "    files = replace(files, exit=replace(ended, exit_code=ended.tes_exit_code, term=False))",
        ),
        rows=_DELETED,
        spoils=_TOLD_TO_END,
    ),
    _mutation(
        "disruption-unseen",
        "The controller does not see why Kubernetes removed a Pod.",
        (f"{_PODFACTS}:_disruption", "return None"),
        rows="drained",
        spoils="drained-preemptible",
    ),
    _mutation(
        "preemptible-ignored",
        "A preemptible task ends like any other.",
        (f"{_STATES}:_disrupted", "facts = replace(facts, preemptible=False)"),
        rows="drained-preemptible",
    ),
    # Nodes
    _mutation(
        "lost-unexplained",
        "The controller does not see that a kubelet has lost a container.",
        (f"{_PODFACTS}:_lost_container", "return None"),
        rows="rebooted",
    ),
    _mutation(
        "stalled-forever",
        "The controller waits indefinitely for a Pod in which every container is dead.",
        (f"{_DECIDE}:_stalled", "return"),
        rows="rebooted-pulling-first rebooted-pulling-second",
    ),
    _mutation(
        "silence-forever",
        "The controller waits indefinitely for a node to confirm that a deleted Pod has ended.",
        (f"{_DECIDE}:_lingering", "return"),
        rows="node-gone",
    ),
    _mutation(
        "collected-is-evicted",
        "The controller treats the loss of a node as an eviction.",
        (f"{_PODFACTS}:_NODE_LOST", '_NODE_LOST = frozenset({"DeletionByTaintManager"})'),
        rows="node-deleted",
    ),
    _mutation(
        "unschedulable-forever",
        "The controller waits for a node indefinitely.",
        (f"{_DECIDE}:_unschedulable", 'limits = limits.model_copy(update={"unschedulable": 0})'),
        rows="unschedulable claim-unbound",
    ),
    _mutation(
        "unmountable-forever",
        "The controller waits indefinitely for a volume to be mounted.",
        (f"{_DECIDE}:_not_set_up", "return"),
        rows="volume-unmountable",
    ),
    _mutation(
        "secret-required",
        "A Pod waits indefinitely for a filer's Secret.",
        (f"{_TASKPOD}/storage.py:_filer_secret", 'return {"secretName": name}'),
        rows="input-no-secret",
    ),
    _mutation(
        "preemption-unseen",
        "The controller does not see that a Pod was preempted.",
        (f"{_PODFACTS}:_disruption", "return None"),
        rows="preempted preempted-preemptible",
        spoils="drained drained-preemptible",
    ),
    # Kueue
    _mutation(
        "queue-reason-unrecorded",
        "The controller does not record why Kueue lets a task wait.",
        (f"{_WORKLOADS}:pending", "return None"),
        rows="kueue-full",
        spoils="kueue-deactivated-waiting kueue-canceled",
    ),
    _mutation(
        "suspension-unseen",
        "The controller does not close the attempt of a Job that was suspended.",
        (f"{_DECIDE}:_has_attempt", "return False"),
        rows="kueue-preempted kueue-stopped",
    ),
    _mutation(
        "deactivation-unseen",
        "The controller does not see that a Workload was deactivated.",
        (f"{_WORKLOADS}:deactivation", "return None"),
        rows="kueue-deactivated-waiting kueue-deactivated-running",
    ),
)
