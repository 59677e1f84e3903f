-- The recorder's only entry: apply a report to the one task whose token the caller holds.
--
-- A report describes the current state, so applying it again changes nothing; a restarted recorder reports again.
-- SECURITY DEFINER: poiesis_recorder has no right on any table, and an invalid token looks like an unknown task. Nothing
-- that an executor wrote is trusted beyond its own executor_log row. What one task may store is bounded (ADR 0020).
CREATE OR REPLACE FUNCTION record_report(p_task uuid, p_token text, p_report jsonb)
RETURNS TABLE (state tes_state, cancel_requested boolean, ended boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    c_lines CONSTANT integer := 1000;
    c_outputs CONSTANT integer := 10000;
    c_output_bytes CONSTANT integer := 4 * 1024 * 1024;
    c_filers CONSTANT integer := 100;
    c_attempts CONSTANT integer := 1000;
    c_message_characters CONSTANT integer := 8192;
    v_task task%ROWTYPE;
    v_attempt integer;
    v_last integer;
    v_state tes_state := (p_report ->> 'state')::tes_state;
    v_ending jsonb := p_report -> 'ending';
    v_outputs jsonb := coalesce(p_report -> 'outputs', '[]');
    v_lines jsonb := coalesce(p_report -> 'system_logs', '[]');
    v_have bigint;
    v_have_bytes bigint;
BEGIN
    SELECT * INTO v_task FROM task WHERE id = p_task AND recorder_token_hash = sha256(convert_to(p_token, 'UTF8'))
       FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no task % with this token', p_task USING ERRCODE = 'insufficient_privilege';
    END IF;

    SELECT max(attempt), max(attempt) FILTER (WHERE pod_uid = p_report ->> 'pod_uid')
      INTO v_last, v_attempt FROM task_log WHERE task_id = p_task;
    IF v_task.ended_at IS NOT NULL AND (
           v_attempt IS DISTINCT FROM v_last OR v_task.ended_at < now() - interval '15 minutes')
       OR v_attempt IS NULL AND v_last >= c_attempts - 1 THEN
        RETURN QUERY SELECT v_task.state, v_task.cancel_requested_at IS NOT NULL, v_task.ended_at IS NOT NULL;
        RETURN;
    END IF;
    IF v_attempt IS NULL THEN
        INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node)
        VALUES (p_task, coalesce(v_last + 1, 0), p_report ->> 'pod_uid', p_report ->> 'pod_name', p_report ->> 'node')
        RETURNING attempt INTO v_attempt;
    END IF;

    -- Forward only, and never out of CANCELING or a terminal state.
    IF v_task.ended_at IS NULL AND (v_task.state, v_state) IN
        (('QUEUED', 'INITIALIZING'), ('QUEUED', 'RUNNING'), ('INITIALIZING', 'RUNNING')) THEN
        UPDATE task SET state = v_state WHERE id = p_task;
    END IF;

    PERFORM public.record_executors(p_task, v_attempt, coalesce(p_report -> 'executors', '[]'));

    IF jsonb_array_length(v_outputs) > 0 THEN
        SELECT count(*), coalesce(sum(octet_length(path) + octet_length(url)), 0) INTO v_have, v_have_bytes
          FROM output_file_log WHERE task_id = p_task AND attempt = v_attempt;
        INSERT INTO output_file_log (task_id, attempt, path, url, size_bytes)
        SELECT p_task, v_attempt, o.path, o.url, o.size_bytes
          FROM (
            SELECT path, url, size_bytes, known, count(*) FILTER (WHERE NOT known) OVER w AS files,
                   sum(octet_length(path) + octet_length(url)) FILTER (WHERE NOT known) OVER w AS bytes
              FROM (
                SELECT given.*, EXISTS (
                    SELECT FROM output_file_log f WHERE f.task_id = p_task AND f.attempt = v_attempt
                       AND hashtextextended(f.path, 0) = hashtextextended(given.path, 0)
                       AND hashtextextended(f.url, 0) = hashtextextended(given.url, 0)) AS known
                  FROM ROWS FROM (jsonb_to_recordset(v_outputs) AS (path text, url text, size_bytes bigint))
                       WITH ORDINALITY AS given (path, url, size_bytes, place)
            ) numbered WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)
          ) o WHERE o.known OR v_have + o.files <= c_outputs AND v_have_bytes + o.bytes <= c_output_bytes
        ON CONFLICT (task_id, attempt, hashtextextended(path, 0), hashtextextended(url, 0))
            DO UPDATE SET size_bytes = excluded.size_bytes;
        IF v_have + jsonb_array_length(v_outputs) > c_outputs
           OR v_have_bytes + octet_length(v_outputs::text) > c_output_bytes THEN
            INSERT INTO system_log (task_id, attempt, source, key, message)
            VALUES (p_task, v_attempt, 'recorder', 'outputs-left-out', format(
                'logs.outputs may not be complete: at most %s files and %s bytes of their paths and URLs are stored',
                c_outputs, c_output_bytes))
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;

    -- The types of inputs that were submitted without one. The task may write the path with a trailing slash.
    UPDATE input SET type = found.type::tes_file_type
      FROM jsonb_to_recordset(coalesce(p_report -> 'inputs', '[]')) AS found (path text, type text)
     WHERE input.task_id = p_task AND input.path IN (found.path, found.path || '/') AND input.type IS NULL
       AND found.type IN ('FILE', 'DIRECTORY');

    INSERT INTO filer_log (task_id, attempt, container, start_time, end_time, files, bytes, bytes_per_second)
    SELECT p_task, v_attempt, f.container, from_ns(f.start_ns), from_ns(f.end_ns), f.files, f.bytes, f.bytes_per_second
      FROM jsonb_to_recordset(coalesce(p_report -> 'filers', '[]')) AS f (
           container text, start_ns bigint, end_ns bigint, files bigint, bytes bigint, bytes_per_second bigint)
     WHERE length(f.container) <= 63 AND (
           EXISTS (SELECT FROM filer_log g
                    WHERE g.task_id = p_task AND g.attempt = v_attempt AND g.container = f.container)
           OR (SELECT count(*) FROM filer_log g WHERE g.task_id = p_task AND g.attempt = v_attempt) < c_filers)
     LIMIT c_filers
    ON CONFLICT (task_id, attempt, container) DO UPDATE SET
        start_time = excluded.start_time, end_time = excluded.end_time, told_at = now(),
        files = excluded.files, bytes = excluded.bytes, bytes_per_second = excluded.bytes_per_second;

    IF jsonb_array_length(v_lines) > 0 THEN
        SELECT count(*) INTO v_have FROM system_log
         WHERE task_id = p_task AND attempt = v_attempt AND source = 'recorder';
        INSERT INTO system_log (task_id, attempt, at, source, key, message)
        SELECT p_task, v_attempt, from_ns(s.at_ns), 'recorder', s.key, left(s.message, c_message_characters)
          FROM jsonb_to_recordset(v_lines) AS s (key text, at_ns bigint, message text)
         WHERE octet_length(s.key) <= 1024 AND NOT EXISTS (
               SELECT FROM system_log l WHERE l.task_id = p_task AND l.attempt = v_attempt
                  AND l.source = 'recorder' AND l.key = s.key)
         LIMIT greatest(0, c_lines - v_have)
        ON CONFLICT (task_id, attempt, source, key) DO NOTHING;
        IF v_have + jsonb_array_length(v_lines) > c_lines THEN
            INSERT INTO system_log (task_id, attempt, source, key, message)
            VALUES (p_task, v_attempt, 'recorder', 'lines-left-out',
                    format('system_logs may not be complete: at most %s lines of an attempt are stored', c_lines))
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;

    IF v_ending IS NOT NULL THEN
        PERFORM public.finish_task(
            p_task, (v_ending ->> 'state')::tes_state, left(v_ending ->> 'reason', c_message_characters),
            left(v_ending ->> 'message', c_message_characters), left(v_ending ->> 'container', 253),
            'recorder', coalesce((p_report ->> 'cancel_seen')::boolean, false));
    END IF;

    RETURN QUERY SELECT t.state, t.cancel_requested_at IS NOT NULL, t.ended_at IS NOT NULL FROM task t WHERE t.id = p_task;
END $$;
REVOKE ALL ON FUNCTION record_report(uuid, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_report(uuid, text, jsonb) TO poiesis_recorder;
