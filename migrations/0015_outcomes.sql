-- Counters of outcomes and of the duration of phases, for the metrics. They survive the controller's restarts.
--
-- finish_task adds a row to task_end, so that ending tasks do not wait for each other at the row of a counter. The
-- leading controller moves these rows into both counters every few seconds, in one transaction. Tasks that ended
-- before this migration are not counted. A controller of the earlier release moves no rows; they wait.
-- phase_count: `tasks` and the sum of their `seconds` per bucket; `le` is the bucket's upper bound.

-- migrate:up
CREATE TABLE task_end (task_id uuid PRIMARY KEY REFERENCES task ON DELETE CASCADE);

CREATE TABLE outcome_count (
    state tes_state NOT NULL CHECK (is_terminal(state)),
    reason text NOT NULL, -- one that the controller knows, 'Other', or empty
    tasks bigint NOT NULL CHECK (tasks > 0),
    PRIMARY KEY (state, reason)
);

CREATE TABLE phase_count (
    phase text NOT NULL CHECK (phase IN ('queued', 'initializing', 'running')),
    le double precision NOT NULL,
    tasks bigint NOT NULL CHECK (tasks > 0),
    seconds double precision NOT NULL CHECK (seconds >= 0),
    PRIMARY KEY (phase, le)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON task_end TO poiesis_api; -- UPDATE: to lock rows
GRANT SELECT, INSERT, UPDATE ON outcome_count, phase_count TO poiesis_api;

-- migrate:down
DROP TABLE phase_count, outcome_count, task_end;
