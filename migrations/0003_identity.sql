-- The group that sees a task in addition to its owner, and the task's share of its owner's limits.
--
-- shared_with: a group whose members see the task; NULL: none. Sizes are GB = 10^9 bytes, what the task asked for
-- or was given by default; NULL: made by an earlier release, and counted for nothing. An earlier release leaves
-- these columns alone.

-- migrate:up
ALTER TABLE task
    ADD COLUMN shared_with text CHECK (shared_with <> ''),
    ADD COLUMN reserved_cpu_cores double precision CHECK (reserved_cpu_cores >= 0),
    ADD COLUMN reserved_ram_gb double precision CHECK (reserved_ram_gb >= 0),
    ADD COLUMN reserved_disk_gb double precision CHECK (reserved_disk_gb >= 0);
CREATE INDEX task_shared ON task (shared_with, seq DESC) WHERE shared_with IS NOT NULL;
CREATE INDEX task_unfinished ON task (owner) WHERE ended_at IS NULL; -- what counts against limits

-- migrate:down
DROP INDEX task_unfinished, task_shared;
ALTER TABLE task
    DROP COLUMN shared_with, DROP COLUMN reserved_cpu_cores, DROP COLUMN reserved_ram_gb, DROP COLUMN reserved_disk_gb;
