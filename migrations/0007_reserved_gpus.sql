-- How many GPUs a task counts for against its owner's limits.
--
-- NULL: made by an earlier release, and counted as none. An earlier release does not set the column.

-- migrate:up
ALTER TABLE task ADD COLUMN reserved_gpus double precision CHECK (reserved_gpus >= 0);

-- migrate:down
ALTER TABLE task DROP COLUMN reserved_gpus;
