-- A create that is sent again with its Idempotency-Key makes no second task.

-- migrate:up
ALTER TABLE task ADD COLUMN idempotency_key text, ADD COLUMN request_digest bytea,
    ADD CHECK ((idempotency_key IS NULL) = (request_digest IS NULL));
CREATE UNIQUE INDEX task_by_idempotency_key ON task (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- migrate:down
ALTER TABLE task DROP COLUMN idempotency_key, DROP COLUMN request_digest;
