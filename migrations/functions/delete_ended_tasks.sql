-- Delete those of the tasks that ended at least an hour ago, with all their rows, and return their ids.
--
-- An hour is longer than the recorder may report after the end (15 minutes, see recorder_access). Locked tasks are left
-- out, so that no other session waits. SECURITY DEFINER: the services have no right to delete rows of a task.
CREATE OR REPLACE FUNCTION delete_ended_tasks(p_tasks uuid[]) RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH due AS MATERIALIZED (
        SELECT id FROM task
         WHERE id = ANY (p_tasks) AND ended_at <= now() - interval '1 hour'
           FOR UPDATE SKIP LOCKED
    )
    DELETE FROM task USING due WHERE task.id = due.id RETURNING task.id
$$;
REVOKE ALL ON FUNCTION delete_ended_tasks(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_ended_tasks(uuid[]) TO poiesis_api;
