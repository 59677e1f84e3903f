-- What a recorder may do with its task: without a lock or a write, so that the gateway can check a token before it reads
-- a report. No row: no such task, or another token. The state is text, because the gateway would look up the enum.
--
-- `closed`: reports are refused, because the task ended more than 15 minutes ago or the Pod is not the task's last.
-- p_pod_uid NULL: the Pod is not known yet, and only the time counts.
CREATE OR REPLACE FUNCTION recorder_access(p_task uuid, p_token text, p_pod_uid text)
RETURNS TABLE (state text, cancel_requested boolean, ended boolean, closed boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT t.state::text, t.cancel_requested_at IS NOT NULL, t.ended_at IS NOT NULL,
           coalesce(t.ended_at < now() - interval '15 minutes', false)
           OR p_pod_uid IS NOT NULL AND (
               coalesce(a.own < a.last, false) OR t.ended_at IS NOT NULL AND a.own IS DISTINCT FROM a.last)
      FROM task t CROSS JOIN LATERAL (
        SELECT max(l.attempt) AS last, max(l.attempt) FILTER (WHERE l.pod_uid = p_pod_uid) AS own
          FROM task_log l WHERE l.task_id = t.id
      ) a
     WHERE t.id = p_task AND t.recorder_token_hash = sha256(convert_to(p_token, 'UTF8'))
$$;
REVOKE ALL ON FUNCTION recorder_access(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION recorder_access(uuid, text, text) TO poiesis_recorder;
