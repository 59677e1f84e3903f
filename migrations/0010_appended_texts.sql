-- The text of running executors is stored as it grows. Before, each report replaced the whole text.
--
-- stdout_bytes, stderr_bytes: the byte of the stream at which the stored text ends; NULL: stored by an earlier release.
-- executor_log_more: pieces that continue the text, until a whole one replaces text and pieces. A piece costs a row of
-- its own size; appending it to the text itself would write the whole text again.
-- executor_log_text: executor_log with the pieces in its texts. An api of the earlier release reads executor_log, so it
-- shows the output of running executors late, and all of it when they have ended.

-- migrate:up
ALTER TABLE executor_log ADD COLUMN stdout_bytes bigint, ADD COLUMN stderr_bytes bigint;

CREATE TABLE executor_log_more (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    executor_index integer NOT NULL,
    stream text NOT NULL CHECK (stream IN ('stdout', 'stderr')),
    after bigint NOT NULL,
    bytes bigint NOT NULL, -- where the piece ends
    text text NOT NULL,
    PRIMARY KEY (task_id, attempt, executor_index, stream, after),
    FOREIGN KEY (task_id, attempt, executor_index) REFERENCES executor_log ON DELETE CASCADE,
    CHECK (bytes > after)
);

-- Without pieces a text is returned as it is stored, so that its size is known without reading it.
CREATE VIEW executor_log_text AS
SELECT task_id, attempt, executor_index, start_time, end_time, exit_code, oom,
       coalesce(stdout || (
           SELECT string_agg(m.text, '' ORDER BY m.after) FROM executor_log_more m
            WHERE m.task_id = l.task_id AND m.attempt = l.attempt AND m.executor_index = l.executor_index
              AND m.stream = 'stdout'), stdout) AS stdout,
       coalesce(stderr || (
           SELECT string_agg(m.text, '' ORDER BY m.after) FROM executor_log_more m
            WHERE m.task_id = l.task_id AND m.attempt = l.attempt AND m.executor_index = l.executor_index
              AND m.stream = 'stderr'), stderr) AS stderr
  FROM executor_log l;

GRANT SELECT, INSERT, DELETE ON executor_log_more TO poiesis_api;
GRANT SELECT ON executor_log_text TO poiesis_api;

-- migrate:down
UPDATE executor_log l SET stdout = t.stdout, stderr = t.stderr
  FROM executor_log_text t
 WHERE (l.task_id, l.attempt, l.executor_index) = (t.task_id, t.attempt, t.executor_index)
   AND EXISTS (SELECT FROM executor_log_more m WHERE (m.task_id, m.attempt, m.executor_index)
                                                   = (l.task_id, l.attempt, l.executor_index));
DROP VIEW executor_log_text;
DROP TABLE executor_log_more;
ALTER TABLE executor_log DROP COLUMN stdout_bytes, DROP COLUMN stderr_bytes;
