-- Store the text of one stream of an executor, for record_executors: the whole (p_text), or a piece that continues what is
-- stored (p_more: `after`, `text`). p_bytes is the byte of the stream at which it ends. p_ended: it is of an ended executor.
--
-- A text never becomes older or shorter: a late duplicate of an earlier report has no effect. A whole text that ends
-- where the stored one does is the same, or longer if it was sent after the end. A whole text without p_bytes is from a
-- recorder of the earlier release, which sends nothing else.
CREATE OR REPLACE FUNCTION record_text(
    p_task uuid, p_attempt integer, p_executor integer, p_stream text, p_text text, p_bytes bigint, p_more jsonb,
    p_ended boolean
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    c_text_characters CONSTANT integer := 2 * 1024 * 1024;
    c_pieces CONSTANT integer := 200;
    v_bytes bigint;
    v_ended boolean;
    v_pieces integer;
    v_pieces_bytes bigint;
    v_pieces_end bigint;
BEGIN
    SELECT CASE p_stream WHEN 'stdout' THEN stdout_bytes ELSE stderr_bytes END, end_time IS NOT NULL
      INTO v_bytes, v_ended FROM executor_log
     WHERE task_id = p_task AND attempt = p_attempt AND executor_index = p_executor;
    SELECT count(*), coalesce(sum(octet_length(text)), 0), max(bytes) INTO v_pieces, v_pieces_bytes, v_pieces_end
      FROM executor_log_more
     WHERE task_id = p_task AND attempt = p_attempt AND executor_index = p_executor AND stream = p_stream;
    v_bytes := coalesce(v_pieces_end, v_bytes);

    IF p_text IS NULL THEN
        IF (p_more ->> 'after')::bigint = v_bytes AND p_bytes > v_bytes AND v_pieces < c_pieces
           AND v_pieces_bytes + octet_length(p_more ->> 'text') <= c_text_characters THEN
            INSERT INTO executor_log_more (task_id, attempt, executor_index, stream, after, bytes, text)
            VALUES (p_task, p_attempt, p_executor, p_stream, v_bytes, p_bytes, p_more ->> 'text');
        END IF;
        RETURN;
    END IF;
    IF p_bytes < v_bytes OR p_bytes = v_bytes AND v_ended AND NOT p_ended THEN
        RETURN;
    END IF;
    IF p_stream = 'stdout' THEN
        UPDATE executor_log SET stdout = right(p_text, c_text_characters), stdout_bytes = p_bytes
         WHERE task_id = p_task AND attempt = p_attempt AND executor_index = p_executor;
    ELSE
        UPDATE executor_log SET stderr = right(p_text, c_text_characters), stderr_bytes = p_bytes
         WHERE task_id = p_task AND attempt = p_attempt AND executor_index = p_executor;
    END IF;
    IF v_pieces > 0 THEN
        DELETE FROM executor_log_more
         WHERE task_id = p_task AND attempt = p_attempt AND executor_index = p_executor AND stream = p_stream;
    END IF;
END $$;
REVOKE ALL ON FUNCTION record_text(uuid, integer, integer, text, text, bigint, jsonb, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_text(uuid, integer, integer, text, text, bigint, jsonb, boolean) TO poiesis_api;
