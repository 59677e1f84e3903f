-- Store the known fields of executors of an attempt: models' ExecutorReport, as JSON. Both the recorder (by record_report)
-- and the controller call it.
--
-- An end is stored once: a later report does not change it, except that it may add that memory ran out. Texts are whole,
-- so a later one replaces an earlier one. Executors that the task does not have are ignored.
CREATE OR REPLACE FUNCTION record_executors(p_task uuid, p_attempt integer, p_executors jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    c_text_characters CONSTANT integer := 2 * 1024 * 1024;
BEGIN
    INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code, oom, stdout, stderr)
    SELECT p_task, p_attempt, e.index, from_ns(e.start_ns), from_ns(e.end_ns), e.exit_code, coalesce(e.oom, false),
           right(e.stdout, c_text_characters), right(e.stderr, c_text_characters)
      FROM jsonb_to_recordset(p_executors) AS e (
           index integer, start_ns bigint, end_ns bigint, exit_code integer, oom boolean, stdout text, stderr text)
      JOIN executor ON executor.task_id = p_task AND executor.index = e.index
    ON CONFLICT (task_id, attempt, executor_index) DO UPDATE SET
        end_time = coalesce(executor_log.end_time, excluded.end_time),
        exit_code = coalesce(executor_log.exit_code, excluded.exit_code),
        oom = executor_log.oom OR excluded.oom,
        stdout = coalesce(excluded.stdout, executor_log.stdout),
        stderr = coalesce(excluded.stderr, executor_log.stderr);
END $$;
REVOKE ALL ON FUNCTION record_executors(uuid, integer, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_executors(uuid, integer, jsonb) TO poiesis_api;
