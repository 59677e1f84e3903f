-- The recorder's only door: one function that applies a report to the one task whose token the caller holds.
--
-- A report describes the current state, so applying it again changes nothing; a recorder that was killed reports again.
-- SECURITY DEFINER: poiesis_recorder itself has no right on any table, and a wrong token looks like a task
-- that does not exist. Nothing an executor wrote is trusted beyond its own executor_log row.

-- migrate:up
CREATE FUNCTION from_ns(ns bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_timestamp(ns / 1000000000.0);

CREATE FUNCTION record_report(p_task uuid, p_token text, p_report jsonb)
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
REVOKE ALL ON FUNCTION record_report, from_ns FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_report TO poiesis_recorder;

-- migrate:down
DROP FUNCTION record_report, from_ns;
