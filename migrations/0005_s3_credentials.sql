-- Which of the operator's S3 credentials a task may use.
--
-- s3_credentials: names in the configuration of the api that made the task, which knew the caller's groups: they are
-- stored nowhere else. A name that the configuration has no more counts for nothing. An earlier release leaves the
-- column alone, and its tasks have none.

-- migrate:up
ALTER TABLE task ADD COLUMN s3_credentials text[] NOT NULL DEFAULT '{}'
    CHECK (array_position(s3_credentials, NULL) IS NULL);

-- migrate:down
ALTER TABLE task DROP COLUMN s3_credentials;
