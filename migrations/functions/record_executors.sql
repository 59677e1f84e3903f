-- Store the known fields of executors of an attempt: models' ExecutorReport, as JSON. Both the recorder (by record_report)
-- and the controller call it.
--
-- An end is stored once: a later report does not change it, except that it may add that memory ran out, or the usage. A row without
-- news is not written again. Executors that the task does not have are ignored.
CREATE OR REPLACE FUNCTION record_executors(p_task uuid, p_attempt integer, p_executors jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO executor_log (
           task_id, attempt, executor_index, start_time, end_time, exit_code, oom,
           user_us, sys_us, peak_memory_bytes, read_bytes, written_bytes, disk_used_bytes)
    SELECT p_task, p_attempt, e.index, from_ns(e.start_ns), from_ns(e.end_ns), e.exit_code, coalesce(e.oom, false),
           u.user_us, u.sys_us, u.peak_memory_bytes, u.read_bytes, u.written_bytes, u.disk_used_bytes
      FROM jsonb_to_recordset(p_executors) AS e (
           index integer, start_ns bigint, end_ns bigint, exit_code integer, oom boolean, usage jsonb)
      JOIN executor ON executor.task_id = p_task AND executor.index = e.index,
           LATERAL jsonb_to_record(coalesce(e.usage, '{}')) AS u (
           user_us bigint, sys_us bigint, peak_memory_bytes bigint, read_bytes bigint, written_bytes bigint,
           disk_used_bytes bigint)
    ON CONFLICT (task_id, attempt, executor_index) DO UPDATE SET
        end_time = coalesce(executor_log.end_time, excluded.end_time),
        exit_code = coalesce(executor_log.exit_code, excluded.exit_code),
        oom = executor_log.oom OR excluded.oom,
        user_us = coalesce(executor_log.user_us, excluded.user_us),
        sys_us = coalesce(executor_log.sys_us, excluded.sys_us),
        peak_memory_bytes = coalesce(executor_log.peak_memory_bytes, excluded.peak_memory_bytes),
        read_bytes = coalesce(executor_log.read_bytes, excluded.read_bytes),
        written_bytes = coalesce(executor_log.written_bytes, excluded.written_bytes),
        disk_used_bytes = coalesce(executor_log.disk_used_bytes, excluded.disk_used_bytes)
     WHERE executor_log.end_time IS NULL AND excluded.end_time IS NOT NULL OR excluded.oom AND NOT executor_log.oom
        OR executor_log.user_us IS NULL AND excluded.user_us IS NOT NULL;

    PERFORM public.record_text(p_task, p_attempt, e.index, s.stream, s.text, s.bytes, s.more, e.end_ns IS NOT NULL)
      FROM jsonb_to_recordset(p_executors) AS e (
           index integer, end_ns bigint, stdout text, stdout_bytes bigint, stdout_more jsonb,
           stderr text, stderr_bytes bigint, stderr_more jsonb)
      JOIN executor ON executor.task_id = p_task AND executor.index = e.index,
           LATERAL (VALUES ('stdout', e.stdout, e.stdout_bytes, e.stdout_more),
                           ('stderr', e.stderr, e.stderr_bytes, e.stderr_more)) AS s (stream, text, bytes, more)
     WHERE s.text IS NOT NULL OR s.more IS NOT NULL;
END $$;
REVOKE ALL ON FUNCTION record_executors(uuid, integer, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_executors(uuid, integer, jsonb) TO poiesis_api;
