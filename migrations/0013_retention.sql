-- Deletion of tasks that ended long ago, and before that of what their executors wrote.
--
-- logs_deleted: stdout and stderr of the task's executors were deleted by their age. An earlier release leaves it alone.
-- task_ended, task_with_logs: the oldest ended tasks of a state, and the oldest ended tasks whose logs are still there,
-- are found without reading others. Building them locks task for writing, a few seconds for a million tasks.
-- Services delete tasks with delete_ended_tasks only, so poiesis_api loses the right to delete rows of a task. No release
-- has used it. It keeps that of executor_log_more, whose pieces are replaced by whole texts.

-- migrate:up
ALTER TABLE task ADD COLUMN logs_deleted boolean NOT NULL DEFAULT false;
CREATE INDEX task_ended ON task (state, ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX task_with_logs ON task (ended_at, id) WHERE ended_at IS NOT NULL AND NOT logs_deleted;
REVOKE DELETE ON
    task, task_tag, backend_parameter, executor, executor_env, input, output, volume,
    task_log, executor_log, output_file_log, system_log FROM poiesis_api;

-- migrate:down
GRANT DELETE ON
    task, task_tag, backend_parameter, executor, executor_env, input, output, volume,
    task_log, executor_log, output_file_log, system_log TO poiesis_api;
DROP INDEX task_with_logs, task_ended;
ALTER TABLE task DROP COLUMN logs_deleted;
