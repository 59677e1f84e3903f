-- The gateway's entry: apply a report unless it is refused (`closed`, see recorder_access). No row: no such task, or
-- another token. The row of the task is locked first, so that the decision holds for the report.
CREATE OR REPLACE FUNCTION gateway_report(p_task uuid, p_token text, p_report jsonb)
RETURNS TABLE (state text, cancel_requested boolean, ended boolean, closed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_access record;
BEGIN
    PERFORM FROM task t WHERE t.id = p_task AND t.recorder_token_hash = sha256(convert_to(p_token, 'UTF8')) FOR UPDATE;
    SELECT * INTO v_access FROM public.recorder_access(p_task, p_token, p_report ->> 'pod_uid');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_access.closed THEN
        RETURN QUERY SELECT v_access.state, v_access.cancel_requested, v_access.ended, true;
        RETURN;
    END IF;
    RETURN QUERY SELECT r.state::text, r.cancel_requested, r.ended, false
      FROM public.record_report(p_task, p_token, p_report) r;
END $$;
REVOKE ALL ON FUNCTION gateway_report(uuid, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gateway_report(uuid, text, jsonb) TO poiesis_recorder;
