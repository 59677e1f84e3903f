-- Trigger of the log tables: remove the stored documents of the tasks whose rows have changed.
CREATE OR REPLACE FUNCTION forget_documents() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE task SET document = NULL, full_document = NULL
     WHERE id = ANY (ARRAY(SELECT DISTINCT task_id FROM changed)) AND document IS NOT NULL;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION forget_documents() FROM PUBLIC;
