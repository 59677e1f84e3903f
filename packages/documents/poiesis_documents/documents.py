"""Tasks as TES documents: SQL that makes one JSON text per task, so that a page costs one statement.

A document contains the fields of its view that have a value: no null, no default. Its size is bounded;
system_logs notes what was left out. Requests and documents of ended tasks are stored as text (ADR 0036);
others are assembled from the rows of the task, with the same result.
"""
# ruff: noqa: S608 - built from text of this file only; values are parameters

from enum import StrEnum

from poiesis_models import labels

TEXT_BYTES = 2 * 1024 * 1024  # of stdout and stderr of all executors and attempts
OUTPUTS = 10_000  # per attempt
OUTPUT_BYTES = 4 * 1024 * 1024  # of their paths and URLs
LINES = 1_000  # of system_logs per attempt, the last ones
LINE_CHARACTERS = 8_192
ATTEMPTS = 50  # the last ones
REASON_CHARACTERS = 1_024  # of waiting_reason
TOO_LARGE = ""  # stored instead of a document that is not worth its space


class View(StrEnum):
    """TES 1.1 views."""

    MINIMAL = "MINIMAL"  # id and state
    BASIC = "BASIC"  # without system_logs, stdout, stderr and contents of inputs
    FULL = "FULL"


def _time(column: str) -> str:
    """Return SQL for a time in RFC 3339, UTC."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_EXECUTORS = """(
    SELECT json_agg(x) FROM (
        SELECT image, command, workdir, stdin, stdout, stderr, ignore_error,
               CASE WHEN has_env THEN (
                   SELECT coalesce(json_object_agg(name, value), '{}') FROM executor_env v
                    WHERE v.task_id = e.task_id AND v.executor_index = e.index
               ) END AS env
          FROM executor e WHERE e.task_id = t.id ORDER BY e.index
    ) x
)"""

_RESOURCES = """CASE WHEN t.has_resources THEN (
    SELECT row_to_json(x) FROM (
        SELECT t.cpu_cores, t.preemptible, t.ram_gb, t.disk_gb, t.zones, t.backend_parameters_strict,
               (SELECT json_object_agg(key, value) FROM backend_parameter WHERE task_id = t.id)
               AS backend_parameters
    ) x
) END"""

_OUTPUTS = """(
    SELECT json_agg(x) FROM (
        SELECT name, description, url, path, path_prefix, type FROM output WHERE task_id = t.id ORDER BY index
    ) x
)"""

_VOLUMES = "(SELECT json_agg(path ORDER BY index) FROM volume WHERE task_id = t.id)"
_TAGS = "(SELECT json_object_agg(key, value) FROM task_tag WHERE task_id = t.id)"

_QUEUE_LINE = "waiting in the queue of the api"
# The task is due, and no replica has leased it for longer than leasing takes.
_WAITS = """t.submitted_at IS NULL AND t.ended_at IS NULL AND t.cancel_requested_at IS NULL
    AND t.next_submit_at < now() - interval '5 seconds'
    AND coalesce(t.claimed_until, t.next_submit_at) <= now()"""


def _system_logs(where: str, notes: str = "") -> str:
    """Return SQL for system_logs with a line per running filer. `notes`: further lines, as UNION ALL …"""
    return f"""(
    SELECT json_agg({_time("at")} || ' ' || left(message, {LINE_CHARACTERS}) ORDER BY at, id) FROM (
        SELECT * FROM (
            SELECT id, attempt, at, message FROM system_log WHERE task_id = t.id
             UNION ALL
            SELECT NULL, attempt, told_at,
                   concat(container, ' in progress: ', files,
                          CASE files WHEN 1 THEN ' file, ' ELSE ' files, ' END, bytes,
                          CASE bytes WHEN 1 THEN ' byte, ' ELSE ' bytes, ' END,
                          round(bytes_per_second / 1e6, 1), ' MB/s')
              FROM filer_log WHERE task_id = t.id AND end_time IS NULL
             UNION ALL
            SELECT NULL, NULL, t.next_submit_at, '{_QUEUE_LINE}' WHERE {_WAITS}
            {notes}
        ) lines WHERE {where} ORDER BY at DESC, id DESC LIMIT {LINES}
    ) last
)"""


# Keys of the lines of system_log that report a wait. An event counts unless it reports that a wait is over.
_WAIT_KEYS = (
    "^(queue$|owner-limit$|submit-|FailedCreate-|Kueue-|requeued$|event/(?!Scheduled|Pulled|more))|/waiting-"
)

# The last line of system_logs if it reports a wait.
_WAITING_REASON = f"""CASE WHEN t.ended_at IS NULL AND t.cancel_requested_at IS NULL THEN
    CASE WHEN {_WAITS} AND NOT EXISTS (
        SELECT FROM system_log WHERE task_id = t.id AND at >= t.next_submit_at
    ) THEN '{_QUEUE_LINE}' ELSE (
        SELECT left(message, {REASON_CHARACTERS}) FROM (
            SELECT key, message FROM system_log WHERE task_id = t.id ORDER BY at DESC, id DESC LIMIT 1
        ) last WHERE key ~ '{_WAIT_KEYS}'
    ) END
END"""

# About the task, not the attempt: in the metadata of the last log, also of a task without a Pod.
_OF_THE_TASK = f"""['waiting_reason', {_WAITING_REASON}], ['reason', t.reason], ['message', t.message],
    ['container', t.container], ['reported_by', t.reported_by::text]"""


def _inputs(*, full: bool) -> str:
    return f"""(
    SELECT json_agg(x) FROM (
        SELECT name, description, url, path, type, streamable{", content" if full else ""}
          FROM input WHERE task_id = t.id ORDER BY index
    ) x
)"""


# Characters shown of each stream; NULL: all. Postgres computes sizes without reading the texts.
_TEXTS = f"""(
    SELECT CASE WHEN sum(coalesce(octet_length(stdout), 0) + coalesce(octet_length(stderr), 0)) > {TEXT_BYTES}
                THEN ({TEXT_BYTES} / 2 / count(*))::integer END AS most
      FROM executor_log_text WHERE task_id = t.id
) texts"""


def _shown(stream: str) -> str:
    return f"coalesce(right({stream}, texts.most), {stream})"


def _executor_logs(*, full: bool) -> str:
    texts = f", {_shown('stdout')} AS stdout, {_shown('stderr')} AS stderr" if full else ""
    return f"""coalesce((
        SELECT json_agg(x) FROM (
            SELECT exit_code, {_time("start_time")} AS start_time, {_time("end_time")} AS end_time
                   {texts}
              FROM executor_log_text
             WHERE task_id = t.id AND attempt = l.attempt AND exit_code IS NOT NULL ORDER BY executor_index
        ) x
    ), '[]')"""


# Metadata is an array of pairs of texts: concatenating them costs less than merging JSON objects.

# The output of running executors, in metadata: entries of `logs` must have an exit code (TES).
_LIVE = f"""(
    SELECT array_agg(ARRAY[format('{labels.EXECUTOR}%s.%s', executor_index, stream), {_shown("content")}])
      FROM executor_log_text,
           LATERAL (VALUES ('stdout', stdout), ('stderr', stderr)) AS streams (stream, content)
     WHERE task_id = t.id AND attempt = l.attempt AND exit_code IS NULL AND content <> ''
)"""


def _times(container: str) -> str:
    """Return SQL of the pairs `<container>.start_time` and `<container>.end_time` of all rows."""
    return f"""array_agg(ARRAY[{container} || '.start_time', {_time("start_time")}])
           || array_agg(ARRAY[{container} || '.end_time', {_time("end_time")}])"""


_EXECUTOR_TIMES = f"""(
    SELECT {_times(f"'{labels.EXECUTOR}' || executor_index")}
      FROM executor_log WHERE task_id = t.id AND attempt = l.attempt
)"""


# By the keys that other TES clients read. Executors run one after another, so their peaks are not added up.
_USAGE = {
    "peak_memory_bytes": "max(peak_memory_bytes)",
    "cpu_time_ms": "round(sum(user_us::numeric + sys_us) / 1000)",
    "user_cpu_time_ms": "round(sum(user_us) / 1000)",
    "system_cpu_time_ms": "round(sum(sys_us) / 1000)",
    "read_bytes": "sum(read_bytes)",
    "written_bytes": "sum(written_bytes)",
    "disk_used_bytes": "max(disk_used_bytes)",
}
_USAGE_COLUMNS = ", ".join(f"({total})::text AS {key}" for key, total in _USAGE.items())
_USAGE_PAIRS = ", ".join(f"('{key}', {key})" for key in _USAGE)

# Of each executor (`executor-<n>.` and the key), and of the attempt.
_EXECUTOR_USAGE = f"""(
    SELECT array_agg(ARRAY[prefix || key, value]) FROM (
        SELECT coalesce('{labels.EXECUTOR}' || executor_index || '.', '') AS prefix, {_USAGE_COLUMNS}
          FROM executor_log WHERE task_id = t.id AND attempt = l.attempt
         GROUP BY GROUPING SETS ((executor_index), ())
    ) used, LATERAL (VALUES {_USAGE_PAIRS}) AS pairs (key, value)
     WHERE value IS NOT NULL
)"""


def _progress(direction: str, condition: str) -> str:
    """Return SQL of the pairs with the progress of the filers of a direction; the rate is of running ones."""
    return f"""
        ['{direction}.files_done', (sum(files) FILTER (WHERE {condition}))::text],
        ['{direction}.bytes_done', (sum(bytes) FILTER (WHERE {condition}))::text],
        ['{direction}.bytes_per_second', (sum(bytes_per_second) FILTER (
            WHERE {condition} AND end_time IS NULL AND t.ended_at IS NULL
        ))::text]"""


_STAGES = f"(container ^@ '{labels.TIF}' OR container ^@ '{labels.STREAM}')"
_PROGRESS = f"{_progress('staging', _STAGES)}, {_progress('sending', f'NOT {_STAGES}')}"
_FILERS = f"""(
    SELECT {_times("container")} || ARRAY[{_PROGRESS}]
      FROM filer_log WHERE task_id = t.id AND attempt = l.attempt
)"""


def _metadata(*, full: bool) -> str:
    pod = "ARRAY[['pod', l.pod_name], ['node', l.node]]"
    metadata = f"""{pod} || CASE WHEN l.attempt = max(l.attempt) OVER () THEN ARRAY[{_OF_THE_TASK}] END
                    || {_EXECUTOR_TIMES} || {_EXECUTOR_USAGE} || {_FILERS}"""
    return f"json_object({metadata} || {_LIVE})" if full else f"json_object({metadata})"


_SENT = f"""coalesce((
    SELECT json_agg(json_build_object('url', url, 'path', path, 'size_bytes', size_bytes::text)) FROM (
        SELECT url, path, size_bytes, sum(octet_length(url) + octet_length(path))
               OVER (ORDER BY path, url ROWS UNBOUNDED PRECEDING) AS bytes
          FROM (
            SELECT url, path, size_bytes FROM output_file_log
             WHERE task_id = t.id AND attempt = l.attempt ORDER BY path, url LIMIT {OUTPUTS}
        ) first
    ) o WHERE bytes <= {OUTPUT_BYTES}
), '[]')"""

_NOTES = f"""
             UNION ALL
            SELECT NULL, l.attempt, coalesce(t.ended_at, now()), format(
                       'stdout and stderr are shortened to the last %s characters of each stream: '
                       'a document contains at most %s bytes of them', texts.most, {TEXT_BYTES})
             WHERE texts.most IS NOT NULL
             UNION ALL
            (SELECT NULL, l.attempt, coalesce(t.ended_at, now()),
                    'outputs of this log are not complete: a document lists at most {OUTPUTS} of them'
               FROM output_file_log WHERE task_id = t.id AND attempt = l.attempt OFFSET {OUTPUTS} LIMIT 1)"""


def _task_logs(*, full: bool) -> str:
    # Lines about the next attempt are in the last log until that attempt has one.
    of_attempt = _system_logs(
        """attempt = l.attempt OR attempt IS NULL AND l.attempt = 0
             OR attempt > l.attempt
                AND NOT EXISTS (SELECT FROM task_log n WHERE n.task_id = t.id AND n.attempt > l.attempt)""",
        _NOTES,
    )
    system_logs = f", {of_attempt} AS system_logs" if full else ""
    texts = f", LATERAL {_TEXTS}" if full else ""
    return f"""(
    SELECT json_agg(x) FROM (
        SELECT {_executor_logs(full=full)} AS logs,
               {_metadata(full=full)} AS metadata,
               {_time("l.start_time")} AS start_time, {_time("l.end_time")} AS end_time,
               {_SENT} AS outputs
               {system_logs}
          FROM (
            SELECT * FROM task_log WHERE task_id = t.id ORDER BY attempt DESC LIMIT {ATTEMPTS}
          ) l{texts} ORDER BY l.attempt
    ) x
)"""


def _without_a_pod(*, full: bool) -> str:
    """Return SQL for the logs of a task without a Pod: its outcome, or why it waits."""
    system_logs = f", 'system_logs', {_system_logs('true')}" if full else ""
    return f"""CASE WHEN t.ended_at IS NOT NULL OR EXISTS (SELECT FROM system_log WHERE task_id = t.id)
                   OR {_WAITS}
THEN json_build_array(json_build_object(
    'logs', '[]'::json, 'outputs', '[]'::json, 'metadata', json_object(ARRAY[{_OF_THE_TASK}]),
    'end_time', {_time("t.ended_at")}{system_logs}
)) END"""


def _request(*, full: bool) -> str:
    """Return SQL for the request as the text of a JSON object, assembled from its rows."""
    return f"""json_strip_nulls(json_build_object(
    'name', t.name, 'description', t.description, 'inputs', {_inputs(full=full)}, 'outputs', {_OUTPUTS},
    'resources', {_RESOURCES}, 'executors', {_EXECUTORS}, 'volumes', {_VOLUMES}, 'tags', {_TAGS}
))::text"""


def _stored_request(*, full: bool) -> str:
    """Return SQL for the stored request; NULL if it must be assembled. It has no contents of inputs."""
    if not full:
        return "t.request"
    # Not EXISTS, for which Postgres may read the inputs of all tasks first.
    has_content = "(SELECT true FROM input WHERE task_id = t.id AND content IS NOT NULL LIMIT 1)"
    return f"CASE WHEN t.request IS NOT NULL AND {has_content} IS NULL THEN t.request END"


def _assembled(*, full: bool) -> str:
    """Return SQL for a document without its stored form. The parts are texts: copying them is cheap."""
    logs = f"json_strip_nulls(coalesce({_task_logs(full=full)}, {_without_a_pod(full=full)}))::text"
    return f"""concat(
    '{{"id":"', t.id, '","state":"', t.state, '","creation_time":"', {_time("t.created_at")}, '",',
    left(substr(coalesce({_stored_request(full=full)}, {_request(full=full)}), 2), -1), -- without its braces
    ',"logs":' || {logs}, '}}')"""


# Expressions over a row `t` of task. STORED: NULL if the document must be assembled.
ASSEMBLED = {View.BASIC: _assembled(full=False), View.FULL: _assembled(full=True)}
STORED = {
    View.MINIMAL: """concat('{"id":"', t.id, '","state":"', t.state, '"}')""",
    View.BASIC: f"nullif(t.document, '{TOO_LARGE}')",
    View.FULL: "t.full_document",
}
DOCUMENT = {
    view: f"coalesce({stored}, {ASSEMBLED[view]})" if view in ASSEMBLED else stored
    for view, stored in STORED.items()
}
REQUEST = f"coalesce({_stored_request(full=True)}, {_request(full=True)})"

PIECE_BYTES = 8 * 1024


def in_pieces(documents: str) -> str:
    """Return a query for the `document`s of `documents` in pieces: (seq, first byte, piece), in order.

    A row has at most PIECE_BYTES, which bounds memory. The query does not sort, so a cursor produces
    documents one by one.
    """
    return f"""
SELECT d.seq, p.first, substring(d.document FROM p.first FOR {PIECE_BYTES}) AS piece
  FROM ({documents}) d
 CROSS JOIN LATERAL generate_series(1, octet_length(d.document), {PIECE_BYTES}) AS p (first)
"""
