-- Documents of tasks as JSON text, so that reads and lists copy them instead of assembling them from rows.
--
-- request: the fields of a request in the view BASIC, without the braces of the object; stored by the create.
-- document, full_document: the whole document of an ended task in the views BASIC and FULL; stored by an api after the
-- end. NULL: assembled from the rows of the task, which stay the truth (made by an earlier release, not ended, not
-- stored yet, or too large).
--
-- Each change of the rows of a document removes it in the same transaction, also for writers of the earlier release.
-- An api that stores a document locks the row of its task FOR UPDATE. The foreign keys of log rows lock it FOR KEY SHARE,
-- or their writer has locked it itself, so no change is missed.
--
-- task_by_name, task_shared_by_name, task_by_any_name: prefixes of names, as ranges of bytes; of the first 128 characters,
-- because an index row holds some 2700 bytes. task_of_state: the states of all owners. The last two are for administrators.

-- migrate:up
ALTER TABLE task ADD COLUMN request text, ADD COLUMN document text, ADD COLUMN full_document text,
    ADD CONSTRAINT task_document_of_ended CHECK (ended_at IS NOT NULL OR (document IS NULL AND full_document IS NULL)),
    ADD CONSTRAINT task_full_document CHECK (document IS NOT NULL OR full_document IS NULL);
CREATE INDEX task_without_document ON task (ended_at) WHERE ended_at IS NOT NULL AND document IS NULL;
CREATE INDEX task_by_name ON task (owner, left(name, 128) text_pattern_ops, seq);
CREATE INDEX task_shared_by_name ON task (shared_with, left(name, 128) text_pattern_ops, seq)
    WHERE shared_with IS NOT NULL;
CREATE INDEX task_by_any_name ON task (left(name, 128) text_pattern_ops, seq);
CREATE INDEX task_of_state ON task (state, seq DESC);

CREATE OR REPLACE FUNCTION forget_documents() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE task SET document = NULL, full_document = NULL
     WHERE id = ANY (ARRAY(SELECT DISTINCT task_id FROM changed)) AND document IS NOT NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_request() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE task SET request = NULL, document = NULL, full_document = NULL
     WHERE id = ANY (ARRAY(SELECT DISTINCT task_id FROM changed));
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION forget_documents, forget_request FROM PUBLIC;

CREATE TRIGGER forget_request AFTER UPDATE ON input
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_request();
DO $$
DECLARE log text;
BEGIN
    FOREACH log IN ARRAY ARRAY[
        'task_log', 'executor_log', 'executor_log_more', 'output_file_log', 'filer_log', 'system_log'
    ] LOOP
        EXECUTE format('CREATE TRIGGER forget_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS changed '
                       'FOR EACH STATEMENT EXECUTE FUNCTION forget_documents()', log);
        EXECUTE format('CREATE TRIGGER forget_updated AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed '
                       'FOR EACH STATEMENT EXECUTE FUNCTION forget_documents()', log);
    END LOOP;
END $$;

-- migrate:down
DO $$
DECLARE log text;
BEGIN
    FOREACH log IN ARRAY ARRAY[
        'task_log', 'executor_log', 'executor_log_more', 'output_file_log', 'filer_log', 'system_log'
    ] LOOP
        EXECUTE format('DROP TRIGGER forget_inserted ON %I', log);
        EXECUTE format('DROP TRIGGER forget_updated ON %I', log);
    END LOOP;
END $$;
DROP TRIGGER forget_request ON input;
DROP FUNCTION forget_documents, forget_request;
DROP INDEX task_of_state, task_by_any_name, task_shared_by_name, task_by_name, task_without_document;
ALTER TABLE task DROP COLUMN request, DROP COLUMN document, DROP COLUMN full_document;
