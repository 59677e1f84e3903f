-- Trigger of input: remove the stored request and documents of the tasks whose inputs have changed.
CREATE OR REPLACE FUNCTION forget_request() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE task SET request = NULL, document = NULL, full_document = NULL
     WHERE id = ANY (ARRAY(SELECT DISTINCT task_id FROM changed));
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION forget_request() FROM PUBLIC;
