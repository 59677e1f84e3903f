-- Store the outcome of a task, once. Return false if the task had already ended, or if a cancel was requested after
-- the caller's decision (p_cancel_seen is false): the caller must decide again. task_end: for the metrics.
CREATE OR REPLACE FUNCTION finish_task(
    p_task uuid, p_state tes_state, p_reason text, p_message text, p_container text, p_by reporter,
    p_cancel_seen boolean
) RETURNS boolean LANGUAGE sql AS $$
    WITH finished AS (
        UPDATE task
           SET state = p_state, reason = p_reason, message = p_message, container = p_container,
               reported_by = p_by, ended_at = now(), recorder_token = NULL, claimed_until = NULL
         WHERE id = p_task AND ended_at IS NULL AND (p_cancel_seen OR cancel_requested_at IS NULL)
        RETURNING id, reason, message
    ), closed AS (
        UPDATE task_log SET end_time = now()
          FROM finished WHERE task_log.task_id = finished.id AND end_time IS NULL
    ), logged AS (
        INSERT INTO system_log (task_id, attempt, source, key, message)
        SELECT id, (SELECT max(attempt) FROM task_log WHERE task_id = id), p_by, 'end',
               concat_ws(': ', p_state::text, reason, message)
          FROM finished
        ON CONFLICT DO NOTHING
    ), counted AS (
        INSERT INTO task_end (task_id) SELECT id FROM finished
    )
    SELECT EXISTS (SELECT FROM finished)
$$;
REVOKE ALL ON FUNCTION finish_task(uuid, tes_state, text, text, text, reporter, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION finish_task(uuid, tes_state, text, text, text, reporter, boolean) TO poiesis_api;
