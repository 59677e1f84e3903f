-- Progress and rate of the filers of a task: reported by its recorder while they run, and again at their end.
--
-- One row per filer and attempt; a filer that is restarted overwrites its row. A recorder of an earlier
-- release reports none. bytes_per_second: since the report before, of the whole run once it has ended.
-- A running filer is reported at least once a minute, so an older row without an end belongs to a lost filer.

-- migrate:up
CREATE TABLE filer_log (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    container text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    told_at timestamptz NOT NULL DEFAULT now(),
    files bigint NOT NULL CHECK (files >= 0),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    bytes_per_second bigint NOT NULL CHECK (bytes_per_second >= 0),
    PRIMARY KEY (task_id, attempt, container),
    FOREIGN KEY (task_id, attempt) REFERENCES task_log ON DELETE CASCADE
);
CREATE INDEX filer_log_told ON filer_log (told_at);
GRANT SELECT ON filer_log TO poiesis_api;

CREATE OR REPLACE FUNCTION record_report(p_task uuid, p_token text, p_report jsonb)
RETURNS TABLE (state tes_state, cancel_requested boolean, ended boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_task task%ROWTYPE;
    v_attempt integer;
    v_state tes_state := (p_report ->> 'state')::tes_state;
    v_ending jsonb := p_report -> 'ending';
BEGIN
    SELECT * INTO v_task FROM task WHERE id = p_task AND recorder_token_hash = sha256(convert_to(p_token, 'UTF8'))
       FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no task % with this token', p_task USING ERRCODE = 'insufficient_privilege';
    END IF;

    SELECT attempt INTO v_attempt FROM task_log WHERE task_id = p_task AND pod_uid = p_report ->> 'pod_uid';
    IF NOT FOUND THEN
        INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node)
        SELECT p_task, coalesce(max(attempt) + 1, 0), p_report ->> 'pod_uid', p_report ->> 'pod_name', p_report ->> 'node'
          FROM task_log WHERE task_id = p_task
        RETURNING attempt INTO v_attempt;
    END IF;

    -- Forward only, and never out of CANCELING or an ending.
    IF v_task.ended_at IS NULL AND (v_task.state, v_state) IN
        (('QUEUED', 'INITIALIZING'), ('QUEUED', 'RUNNING'), ('INITIALIZING', 'RUNNING')) THEN
        UPDATE task SET state = v_state WHERE id = p_task;
    END IF;

    INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code, oom, stdout, stderr)
    SELECT p_task, v_attempt, e.index, from_ns(e.start_ns), from_ns(e.end_ns), e.exit_code, coalesce(e.oom, false),
           e.stdout, e.stderr
      FROM jsonb_to_recordset(coalesce(p_report -> 'executors', '[]')) AS e (
           index integer, start_ns bigint, end_ns bigint, exit_code integer, oom boolean, stdout text, stderr text)
    ON CONFLICT (task_id, attempt, executor_index) DO UPDATE SET
        end_time = coalesce(executor_log.end_time, excluded.end_time),
        exit_code = coalesce(executor_log.exit_code, excluded.exit_code),
        oom = executor_log.oom OR excluded.oom,
        stdout = coalesce(excluded.stdout, executor_log.stdout),
        stderr = coalesce(excluded.stderr, executor_log.stderr);

    INSERT INTO output_file_log (task_id, attempt, path, url, size_bytes)
    SELECT p_task, v_attempt, o.path, o.url, o.size_bytes
      FROM jsonb_to_recordset(coalesce(p_report -> 'outputs', '[]')) AS o (path text, url text, size_bytes bigint)
    ON CONFLICT (task_id, attempt, hashtextextended(path, 0), hashtextextended(url, 0)) DO UPDATE SET size_bytes = excluded.size_bytes;

    INSERT INTO filer_log (task_id, attempt, container, start_time, end_time, files, bytes, bytes_per_second)
    SELECT p_task, v_attempt, f.container, from_ns(f.start_ns), from_ns(f.end_ns), f.files, f.bytes, f.bytes_per_second
      FROM jsonb_to_recordset(coalesce(p_report -> 'filers', '[]')) AS f (
           container text, start_ns bigint, end_ns bigint, files bigint, bytes bigint, bytes_per_second bigint)
    ON CONFLICT (task_id, attempt, container) DO UPDATE SET
        start_time = excluded.start_time, end_time = excluded.end_time, told_at = now(),
        files = excluded.files, bytes = excluded.bytes, bytes_per_second = excluded.bytes_per_second;

    INSERT INTO system_log (task_id, attempt, at, source, key, message)
    SELECT p_task, v_attempt, from_ns(s.at_ns), 'recorder', s.key, s.message
      FROM jsonb_to_recordset(coalesce(p_report -> 'system_logs', '[]')) AS s (key text, at_ns bigint, message text)
    ON CONFLICT (task_id, attempt, source, key) DO NOTHING;

    IF v_ending IS NOT NULL THEN
        PERFORM finish_task(
            p_task, (v_ending ->> 'state')::tes_state, v_ending ->> 'reason', v_ending ->> 'message',
            v_ending ->> 'container', 'recorder', coalesce((p_report ->> 'cancel_seen')::boolean, false));
    END IF;

    RETURN QUERY SELECT t.state, t.cancel_requested_at IS NOT NULL, t.ended_at IS NOT NULL FROM task t WHERE t.id = p_task;
END $$;

-- migrate:down
CREATE OR REPLACE FUNCTION record_report(p_task uuid, p_token text, p_report jsonb)
RETURNS TABLE (state tes_state, cancel_requested boolean, ended boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_task task%ROWTYPE;
    v_attempt integer;
    v_state tes_state := (p_report ->> 'state')::tes_state;
    v_ending jsonb := p_report -> 'ending';
BEGIN
    SELECT * INTO v_task FROM task WHERE id = p_task AND recorder_token_hash = sha256(convert_to(p_token, 'UTF8'))
       FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no task % with this token', p_task USING ERRCODE = 'insufficient_privilege';
    END IF;

    SELECT attempt INTO v_attempt FROM task_log WHERE task_id = p_task AND pod_uid = p_report ->> 'pod_uid';
    IF NOT FOUND THEN
        INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node)
        SELECT p_task, coalesce(max(attempt) + 1, 0), p_report ->> 'pod_uid', p_report ->> 'pod_name', p_report ->> 'node'
          FROM task_log WHERE task_id = p_task
        RETURNING attempt INTO v_attempt;
    END IF;

    -- Forward only, and never out of CANCELING or an ending.
    IF v_task.ended_at IS NULL AND (v_task.state, v_state) IN
        (('QUEUED', 'INITIALIZING'), ('QUEUED', 'RUNNING'), ('INITIALIZING', 'RUNNING')) THEN
        UPDATE task SET state = v_state WHERE id = p_task;
    END IF;

    INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code, oom, stdout, stderr)
    SELECT p_task, v_attempt, e.index, from_ns(e.start_ns), from_ns(e.end_ns), e.exit_code, coalesce(e.oom, false),
           e.stdout, e.stderr
      FROM jsonb_to_recordset(coalesce(p_report -> 'executors', '[]')) AS e (
           index integer, start_ns bigint, end_ns bigint, exit_code integer, oom boolean, stdout text, stderr text)
    ON CONFLICT (task_id, attempt, executor_index) DO UPDATE SET
        end_time = coalesce(executor_log.end_time, excluded.end_time),
        exit_code = coalesce(executor_log.exit_code, excluded.exit_code),
        oom = executor_log.oom OR excluded.oom,
        stdout = coalesce(excluded.stdout, executor_log.stdout),
        stderr = coalesce(excluded.stderr, executor_log.stderr);

    INSERT INTO output_file_log (task_id, attempt, path, url, size_bytes)
    SELECT p_task, v_attempt, o.path, o.url, o.size_bytes
      FROM jsonb_to_recordset(coalesce(p_report -> 'outputs', '[]')) AS o (path text, url text, size_bytes bigint)
    ON CONFLICT (task_id, attempt, hashtextextended(path, 0), hashtextextended(url, 0)) DO UPDATE SET size_bytes = excluded.size_bytes;

    INSERT INTO system_log (task_id, attempt, at, source, key, message)
    SELECT p_task, v_attempt, from_ns(s.at_ns), 'recorder', s.key, s.message
      FROM jsonb_to_recordset(coalesce(p_report -> 'system_logs', '[]')) AS s (key text, at_ns bigint, message text)
    ON CONFLICT (task_id, attempt, source, key) DO NOTHING;

    IF v_ending IS NOT NULL THEN
        PERFORM finish_task(
            p_task, (v_ending ->> 'state')::tes_state, v_ending ->> 'reason', v_ending ->> 'message',
            v_ending ->> 'container', 'recorder', coalesce((p_report ->> 'cancel_seen')::boolean, false));
    END IF;

    RETURN QUERY SELECT t.state, t.cancel_requested_at IS NOT NULL, t.ended_at IS NOT NULL FROM task t WHERE t.id = p_task;
END $$;

DROP TABLE filer_log;
