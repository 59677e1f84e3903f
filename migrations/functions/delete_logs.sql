-- Delete stdout and stderr of the executors of those of the tasks that ended at least an hour ago, and return their ids.
-- p_message becomes a line of their system_logs. Stored documents are removed. Locked tasks are left out, as in
-- delete_ended_tasks.
CREATE OR REPLACE FUNCTION delete_logs(p_tasks uuid[], p_message text) RETURNS SETOF uuid
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    WITH due AS MATERIALIZED (
        SELECT id FROM task
         WHERE id = ANY (p_tasks) AND ended_at <= now() - interval '1 hour' AND NOT logs_deleted
           FOR UPDATE SKIP LOCKED
    ), pieces AS (
        DELETE FROM executor_log_more USING due WHERE task_id = due.id
    ), texts AS (
        UPDATE executor_log SET stdout = NULL, stderr = NULL FROM due
         WHERE task_id = due.id AND (stdout IS NOT NULL OR stderr IS NOT NULL)
        RETURNING task_id
    ), logged AS (
        INSERT INTO system_log (task_id, attempt, source, key, message)
        SELECT task_id, (SELECT max(attempt) FROM task_log l WHERE l.task_id = t.task_id), 'controller', 'logs-deleted',
               p_message
          FROM (SELECT DISTINCT task_id FROM texts) t
        ON CONFLICT DO NOTHING
    )
    UPDATE task SET logs_deleted = true, document = NULL, full_document = NULL
      FROM due WHERE task.id = due.id RETURNING task.id
$$;
REVOKE ALL ON FUNCTION delete_logs(uuid[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_logs(uuid[], text) TO poiesis_api;
