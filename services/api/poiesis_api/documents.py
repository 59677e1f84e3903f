"""Tasks as TES documents: SQL that makes one JSON text per task, so that a page costs one statement.

A document holds exactly what its view allows and nothing that was not sent: no null, no default. Its size has
a bound, whatever the task printed and sent: what is left out is noted in system_logs.
"""
# ruff: noqa: S608 - put together from this file's own text alone; values are parameters

from enum import StrEnum

TEXT_BYTES = 2 * 1024 * 1024  # of stdout and stderr of all executors and attempts
OUTPUTS = 10_000  # per attempt
OUTPUT_BYTES = 4 * 1024 * 1024  # of their paths and URLs
LINES = 1_000  # of system_logs per attempt, the last ones
LINE_CHARACTERS = 8_192
ATTEMPTS = 50  # the last ones
REASON_CHARACTERS = 1_024  # of waiting_reason


class View(StrEnum):
    """TES 1.1 views."""

    MINIMAL = "MINIMAL"  # id and state
    BASIC = "BASIC"  # without the logs' texts and the inputs' contents
    FULL = "FULL"


def _time(column: str) -> str:
    """RFC 3339, UTC."""
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

_QUEUE_LINE = "waits for its turn in the queue"
# No replica has taken it, although it is due for longer than that takes.
_WAITS = """t.submitted_at IS NULL AND t.ended_at IS NULL AND t.cancel_requested_at IS NULL
    AND t.next_submit_at < now() - interval '5 seconds'
    AND coalesce(t.claimed_until, t.next_submit_at) <= now()"""


def _system_logs(where: str, notes: str = "") -> str:
    """`notes`: further lines, as UNION ALL … A filer that runs has a line of its own that changes."""
    return f"""(
    SELECT json_agg({_time("at")} || ' ' || left(message, {LINE_CHARACTERS}) ORDER BY at, id) FROM (
        SELECT * FROM (
            SELECT id, attempt, at, message FROM system_log WHERE task_id = t.id
             UNION ALL
            SELECT NULL, attempt, told_at,
                   concat(container, ' so far: ', files, CASE files WHEN 1 THEN ' file, ' ELSE ' files, ' END,
                          bytes, CASE bytes WHEN 1 THEN ' byte, ' ELSE ' bytes, ' END,
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
_WAITING_REASON = f"""CASE WHEN t.ended_at IS NULL AND t.cancel_requested_at IS NULL THEN (
    SELECT left(message, {REASON_CHARACTERS}) FROM (
        SELECT id, at, key, message FROM system_log WHERE task_id = t.id
         UNION ALL
        SELECT NULL, t.next_submit_at, 'queue', '{_QUEUE_LINE}' WHERE {_WAITS}
         ORDER BY at DESC, id DESC NULLS LAST LIMIT 1
    ) last WHERE key ~ '{_WAIT_KEYS}'
) END"""

# About the task, not the attempt: in the metadata of the last log, also of a task without a Pod.
_OF_THE_TASK = f"""'waiting_reason', {_WAITING_REASON}, 'reason', t.reason, 'message', t.message,
    'container', t.container, 'reported_by', t.reported_by"""


def _inputs(*, full: bool) -> str:
    return f"""(
    SELECT json_agg(x) FROM (
        SELECT name, description, url, path, type, streamable{", content" if full else ""}
          FROM input WHERE task_id = t.id ORDER BY index
    ) x
)"""


# How many characters of each stream are shown; NULL: all of them. To know sizes Postgres reads no text.
_TEXTS = f"""(
    SELECT CASE WHEN sum(coalesce(octet_length(stdout), 0) + coalesce(octet_length(stderr), 0)) > {TEXT_BYTES}
                THEN ({TEXT_BYTES} / 2 / count(*))::integer END AS most
      FROM executor_log WHERE task_id = t.id
) texts"""


def _shown(stream: str) -> str:
    return f"coalesce(right({stream}, texts.most), {stream})"


def _executor_logs(*, full: bool) -> str:
    texts = f", {_shown('stdout')} AS stdout, {_shown('stderr')} AS stderr" if full else ""
    return f"""coalesce((
        SELECT json_agg(x) FROM (
            SELECT exit_code, {_time("start_time")} AS start_time, {_time("end_time")} AS end_time
                   {texts}
              FROM executor_log
             WHERE task_id = t.id AND attempt = l.attempt AND exit_code IS NOT NULL ORDER BY executor_index
        ) x
    ), '[]')"""


# What executors have printed of which no end is known: in `logs` TES wants an exit code of each.
_LIVE = f"""coalesce((
    SELECT jsonb_object_agg(format('executor-%s.%s', executor_index, stream), {_shown("said")})
      FROM executor_log, LATERAL (VALUES ('stdout', stdout), ('stderr', stderr)) AS streams (stream, said)
     WHERE task_id = t.id AND attempt = l.attempt AND exit_code IS NULL AND said <> ''
), '{{}}')"""


# `<container>.start_time` and `.end_time` of filers and executors.
_CONTAINER_TIMES = f"""coalesce((
    SELECT jsonb_object_agg(container || '.' || key, value)
      FROM (
        SELECT container, start_time, end_time FROM filer_log WHERE task_id = t.id AND attempt = l.attempt
         UNION ALL
        SELECT 'executor-' || executor_index, start_time, end_time
          FROM executor_log WHERE task_id = t.id AND attempt = l.attempt
      ) c, LATERAL (VALUES ('start_time', {_time("start_time")}), ('end_time', {_time("end_time")}))
           AS times (key, value)
     WHERE value IS NOT NULL
), '{{}}')"""

# The progress of all filers of a direction; the rate is that of the running ones, and absent if none runs.
_TRANSFERS = """coalesce((
    SELECT jsonb_object_agg(direction || '.' || key, value)
      FROM (
        SELECT CASE WHEN container ~ '^(tif|stream)-' THEN 'staging' ELSE 'sending' END AS direction,
               sum(files)::text AS files, sum(bytes)::text AS bytes,
               (sum(bytes_per_second) FILTER (WHERE end_time IS NULL AND t.ended_at IS NULL))::text AS rate
          FROM filer_log WHERE task_id = t.id AND attempt = l.attempt GROUP BY 1
      ) d, LATERAL (VALUES ('files_done', files), ('bytes_done', bytes), ('bytes_per_second', rate))
           AS counts (key, value)
     WHERE value IS NOT NULL
), '{}')"""


def _metadata(*, full: bool) -> str:
    pod = "'pod', l.pod_name, 'node', l.node"
    metadata = f"""CASE WHEN l.attempt = max(l.attempt) OVER ()
                    THEN jsonb_build_object({pod}, {_OF_THE_TASK}) ELSE jsonb_build_object({pod}) END
                    || {_CONTAINER_TIMES} || {_TRANSFERS}"""
    return f"{metadata} || {_LIVE}" if full else metadata


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
    # What befalls the next attempt before it has a log of its own stands in the last one.
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
    """How it ended, or why it waits."""
    system_logs = f", 'system_logs', {_system_logs('true')}" if full else ""
    return f"""CASE WHEN t.ended_at IS NOT NULL OR EXISTS (SELECT FROM system_log WHERE task_id = t.id)
                   OR {_WAITS}
THEN json_build_array(json_build_object(
    'logs', '[]'::json, 'outputs', '[]'::json, 'metadata', json_build_object({_OF_THE_TASK}),
    'end_time', {_time("t.ended_at")}{system_logs}
)) END"""


def _request_fields(*, full: bool) -> str:
    return f"""
    'name', t.name, 'description', t.description, 'inputs', {_inputs(full=full)}, 'outputs', {_OUTPUTS},
    'resources', {_RESOURCES}, 'executors', {_EXECUTORS}, 'volumes', {_VOLUMES}, 'tags', {_TAGS}"""


def _document(*, full: bool) -> str:
    return f"""json_strip_nulls(json_build_object(
    'id', t.id, 'state', t.state, 'creation_time', {_time("t.created_at")}, {_request_fields(full=full)},
    'logs', coalesce({_task_logs(full=full)}, {_without_a_pod(full=full)})
))::text"""


# Expressions over a row `t` of task.
DOCUMENT = {
    View.MINIMAL: "json_build_object('id', t.id, 'state', t.state)::text",
    View.BASIC: _document(full=False),
    View.FULL: _document(full=True),
}
REQUEST = f"json_strip_nulls(json_build_object({_request_fields(full=True)}))::text"

PIECE_BYTES = 8 * 1024


def in_pieces(documents: str) -> str:
    """A query for the `document`s of `documents` in pieces, as (seq, first byte, piece), in their order.

    A row has at most PIECE_BYTES, which bounds the memory that some rows take. With a cursor no document is
    made before it is asked for: nothing in the query sorts.
    """
    return f"""
SELECT d.seq, p.first, substring(d.document FROM p.first FOR {PIECE_BYTES}) AS piece
  FROM ({documents}) d
 CROSS JOIN LATERAL generate_series(1, octet_length(d.document), {PIECE_BYTES}) AS p (first)
"""
