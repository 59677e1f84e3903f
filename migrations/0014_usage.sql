-- What executors used, and one row per ended task for accounting (ADR 0042).
--
-- executor_log: CPU time, memory, block device transfers and disk of a container; NULL: not measured, or reported by a
-- recorder of an earlier release.
-- task_usage: written by finish_task, so tasks that ended before this migration have no row. A row outlives its task.
-- Time is that of the task's Pods, over all attempts; *_seconds are what was reserved, multiplied by it. Rows are
-- narrow and in the order of ended_at, so that a report over a million tasks reads little more than it adds up.

-- migrate:up
ALTER TABLE executor_log
    ADD COLUMN user_us bigint CHECK (user_us >= 0),
    ADD COLUMN sys_us bigint CHECK (sys_us >= 0),
    ADD COLUMN peak_memory_bytes bigint CHECK (peak_memory_bytes >= 0),
    ADD COLUMN read_bytes bigint CHECK (read_bytes >= 0),
    ADD COLUMN written_bytes bigint CHECK (written_bytes >= 0),
    ADD COLUMN disk_used_bytes bigint CHECK (disk_used_bytes >= 0);

CREATE TABLE task_usage (
    task_id uuid PRIMARY KEY,
    ended_at timestamptz NOT NULL,
    owner text NOT NULL,
    shared_with text,
    state tes_state NOT NULL CHECK (is_terminal(state)),
    cpu_seconds double precision NOT NULL,
    ram_gb_seconds double precision NOT NULL,
    disk_gb_seconds double precision NOT NULL,
    gpu_seconds double precision NOT NULL,
    used_cpu_seconds double precision, -- NULL: not measured
    tags jsonb
);
CREATE INDEX task_usage_by_time ON task_usage (ended_at);
CREATE INDEX task_usage_by_owner ON task_usage (owner, ended_at);
GRANT SELECT, INSERT, DELETE ON task_usage TO poiesis_api;

-- migrate:down
DROP TABLE task_usage;
ALTER TABLE executor_log
    DROP COLUMN user_us, DROP COLUMN sys_us, DROP COLUMN peak_memory_bytes,
    DROP COLUMN read_bytes, DROP COLUMN written_bytes, DROP COLUMN disk_used_bytes;
