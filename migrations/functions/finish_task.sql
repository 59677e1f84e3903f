-- Store the outcome of a task, once. Return false if the task had already ended, or if a cancel was requested after
-- the caller's decision (p_cancel_seen is false): the caller must decide again. The usage of the task is added to the
-- accounts (task_usage): its reserved resources for the time of its Pods, and the CPU time of its executors. task_end: for
-- the metrics.
CREATE OR REPLACE FUNCTION finish_task(
    p_task uuid, p_state tes_state, p_reason text, p_message text, p_container text, p_by reporter,
    p_cancel_seen boolean
) RETURNS boolean LANGUAGE sql AS $$
    WITH finished AS (
        UPDATE task
           SET state = p_state, reason = p_reason, message = p_message, container = p_container,
               reported_by = p_by, ended_at = now(), recorder_token = NULL, claimed_until = NULL
         WHERE id = p_task AND ended_at IS NULL AND (p_cancel_seen OR cancel_requested_at IS NULL)
        RETURNING *
    ), closed AS (
        UPDATE task_log SET end_time = now()
          FROM finished WHERE task_log.task_id = finished.id AND end_time IS NULL
    ), logged AS (
        INSERT INTO system_log (task_id, attempt, source, key, message)
        SELECT id, (SELECT max(attempt) FROM task_log WHERE task_id = id), p_by, 'end',
               concat_ws(': ', p_state::text, reason, message)
          FROM finished
        ON CONFLICT DO NOTHING
    ), accounted AS (
        INSERT INTO task_usage (
               task_id, ended_at, owner, shared_with, state,
               cpu_seconds, ram_gb_seconds, disk_gb_seconds, gpu_seconds, used_cpu_seconds, tags)
        SELECT id, ended_at, owner, shared_with, state,
               coalesce(reserved_cpu_cores * pods.seconds, 0), coalesce(reserved_ram_gb * pods.seconds, 0),
               coalesce(reserved_disk_gb * pods.seconds, 0), coalesce(reserved_gpus * pods.seconds, 0),
               (SELECT sum(user_us::numeric + sys_us) / 1e6 FROM executor_log WHERE task_id = id),
               (SELECT jsonb_object_agg(key, value) FROM task_tag WHERE task_id = id)
          FROM finished, LATERAL (
            SELECT extract(epoch FROM sum(greatest(coalesce(end_time, now()) - start_time, interval '0'))) AS seconds
              FROM task_log WHERE task_id = id
          ) pods
        ON CONFLICT DO NOTHING
    ), counted AS (
        INSERT INTO task_end (task_id) SELECT id FROM finished
    )
    SELECT EXISTS (SELECT FROM finished)
$$;
REVOKE ALL ON FUNCTION finish_task(uuid, tes_state, text, text, text, reporter, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION finish_task(uuid, tes_state, text, text, text, reporter, boolean) TO poiesis_api;
