-- The relational schema: Postgres is the source of truth for what a task is and how it ended.
--
-- TES documents are stored field by field, so that impossible rows are refused here and not by convention.
-- A column that is NULL was not sent by the client and is not returned. Sizes are GB = 10^9 bytes.
-- Roles: poiesis_api reads and writes the tables (api and controller); poiesis_recorder has no table rights
-- and can only call record_report (0002). Both are made here if they do not exist, without a login;
-- the migration runner gives them the passwords of the configured DSNs.

-- migrate:up
CREATE TYPE tes_state AS ENUM (
    'QUEUED', 'INITIALIZING', 'RUNNING', 'COMPLETE', 'EXECUTOR_ERROR', 'SYSTEM_ERROR',
    'CANCELED', 'PREEMPTED', 'CANCELING'
);
CREATE TYPE tes_file_type AS ENUM ('FILE', 'DIRECTORY');
CREATE TYPE reporter AS ENUM ('recorder', 'controller', 'api');

CREATE FUNCTION is_terminal(state tes_state) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN state IN ('COMPLETE', 'EXECUTOR_ERROR', 'SYSTEM_ERROR', 'CANCELED', 'PREEMPTED');

CREATE TABLE task (
    id uuid PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE, -- order of lists: newest first, stable while rows come
    owner text NOT NULL,
    state tes_state NOT NULL DEFAULT 'QUEUED',
    name text,
    description text,
    has_resources boolean NOT NULL DEFAULT false,
    cpu_cores integer CHECK (cpu_cores > 0),
    preemptible boolean,
    ram_gb double precision CHECK (ram_gb > 0),
    disk_gb double precision CHECK (disk_gb > 0),
    zones text[],
    backend_parameters_strict boolean,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- how it ended
    ended_at timestamptz,
    reason text,    -- Kubernetes' own word where there is one: OOMKilled, Evicted, ImagePullBackOff, …
    message text,
    container text, -- the container that failed
    reported_by reporter,
    -- cancel intent
    cancel_requested_at timestamptz,
    cancel_requested_by text,
    -- submission: a row is claimed by one api replica at a time; submitted_at is set before the Job is unsuspended
    claimed_until timestamptz,
    submit_attempts integer NOT NULL DEFAULT 0,
    next_submit_at timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz,
    recorder_token text,               -- random; forgotten once it is in the task's Secret
    recorder_token_hash bytea NOT NULL, -- sha256 of it
    CHECK (is_terminal(state) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NOT NULL) = (reported_by IS NOT NULL)),
    CHECK ((cancel_requested_at IS NULL) = (cancel_requested_by IS NULL)),
    CHECK (state NOT IN ('CANCELING', 'CANCELED') OR cancel_requested_at IS NOT NULL),
    CHECK (submitted_at IS NULL OR recorder_token IS NULL)
);
CREATE INDEX task_by_owner ON task (owner, seq DESC);
CREATE INDEX task_by_state ON task (owner, state, seq DESC);
CREATE INDEX task_to_submit ON task (owner, next_submit_at, seq) WHERE submitted_at IS NULL AND ended_at IS NULL;
CREATE INDEX task_claimed ON task (claimed_until) WHERE claimed_until IS NOT NULL AND ended_at IS NULL;
CREATE INDEX task_active ON task (owner) WHERE submitted_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX task_canceling ON task (id) WHERE state = 'CANCELING';

CREATE TABLE task_tag (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    key text NOT NULL CHECK (key <> ''),
    value text NOT NULL,
    PRIMARY KEY (task_id, key)
);
CREATE INDEX task_tag_by_value ON task_tag (key, value);

CREATE TABLE backend_parameter (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (task_id, key)
);

CREATE TABLE executor (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    image text NOT NULL CHECK (image <> ''),
    command text[] NOT NULL CHECK (cardinality(command) > 0),
    workdir text,
    stdin text,
    stdout text,
    stderr text,
    ignore_error boolean,
    has_env boolean NOT NULL DEFAULT false,
    PRIMARY KEY (task_id, index)
);

CREATE TABLE executor_env (
    task_id uuid NOT NULL,
    executor_index integer NOT NULL,
    name text NOT NULL CHECK (name <> ''),
    value text NOT NULL,
    PRIMARY KEY (task_id, executor_index, name),
    FOREIGN KEY (task_id, executor_index) REFERENCES executor ON DELETE CASCADE
);

CREATE TABLE input (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    name text,
    description text,
    url text,
    path text NOT NULL CHECK (path LIKE '/%'),
    type tes_file_type,
    content text CHECK (octet_length(content) <= 131072),
    streamable boolean,
    PRIMARY KEY (task_id, index),
    UNIQUE (task_id, path),
    CHECK (url IS NOT NULL OR content IS NOT NULL)
);

CREATE TABLE output (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    name text,
    description text,
    url text NOT NULL CHECK (url <> ''),
    path text NOT NULL CHECK (path LIKE '/%'),
    path_prefix text,
    type tes_file_type,
    PRIMARY KEY (task_id, index)
);

CREATE TABLE volume (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    path text NOT NULL CHECK (path LIKE '/%'),
    PRIMARY KEY (task_id, index)
);

-- One row an attempt: a Job that Kueue suspends and admits again gets a new Pod and so a new row.
CREATE TABLE task_log (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    attempt integer NOT NULL CHECK (attempt >= 0),
    pod_uid text NOT NULL,
    pod_name text NOT NULL,
    node text NOT NULL,
    start_time timestamptz NOT NULL DEFAULT now(),
    end_time timestamptz,
    PRIMARY KEY (task_id, attempt),
    UNIQUE (task_id, pod_uid)
);

CREATE TABLE executor_log (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    executor_index integer NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    exit_code integer CHECK (exit_code BETWEEN 0 AND 255),
    oom boolean NOT NULL DEFAULT false,
    stdout text,
    stderr text,
    PRIMARY KEY (task_id, attempt, executor_index),
    FOREIGN KEY (task_id, attempt) REFERENCES task_log ON DELETE CASCADE,
    FOREIGN KEY (task_id, executor_index) REFERENCES executor ON DELETE CASCADE,
    CHECK ((end_time IS NULL) = (exit_code IS NULL))
);

CREATE TABLE output_file_log (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    path text NOT NULL,
    url text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    FOREIGN KEY (task_id, attempt) REFERENCES task_log ON DELETE CASCADE
);
-- By hashes: a path and a URL may be longer than what an index can hold.
CREATE UNIQUE INDEX output_file_log_once
    ON output_file_log (task_id, attempt, hashtextextended(path, 0), hashtextextended(url, 0));

-- Lines of the system about a task, in order. `key` makes a line unique per task and attempt, so it may be reported
-- again. attempt is NULL for lines from before there was a Pod.
CREATE TABLE system_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    attempt integer,
    at timestamptz NOT NULL DEFAULT now(),
    source reporter NOT NULL,
    key text NOT NULL,
    message text NOT NULL,
    UNIQUE NULLS NOT DISTINCT (task_id, attempt, source, key)
);

-- A terminal state is never changed, and states move forward; back to QUEUED only for a new attempt.
CREATE FUNCTION guard_task_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF is_terminal(OLD.state) AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'task % has ended as % and cannot become %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.state = 'CANCELING' AND NEW.state IN ('QUEUED', 'INITIALIZING', 'RUNNING')
        OR OLD.state = 'RUNNING' AND NEW.state = 'INITIALIZING' THEN
        RAISE EXCEPTION 'task % cannot go from % back to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER task_state_guard BEFORE UPDATE OF state ON task
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION guard_task_state();

-- Store how a task ended, once. False if it had ended already, which is not an error, or if a cancel has been
-- asked for that the caller did not know of when it decided (p_cancel_seen): it must decide again.
CREATE FUNCTION finish_task(
    p_task uuid, p_state tes_state, p_reason text, p_message text, p_container text, p_by reporter,
    p_cancel_seen boolean
) RETURNS boolean LANGUAGE sql AS $$
    WITH finished AS (
        UPDATE task
           SET state = p_state, reason = p_reason, message = p_message, container = p_container,
               reported_by = p_by, ended_at = now(), recorder_token = NULL, claimed_until = NULL
         WHERE id = p_task AND ended_at IS NULL AND (p_cancel_seen OR cancel_requested_at IS NULL)
        RETURNING id, reason, message
    ), closed AS (
        UPDATE task_log SET end_time = now()
          FROM finished WHERE task_log.task_id = finished.id AND end_time IS NULL
    ), said AS (
        INSERT INTO system_log (task_id, attempt, source, key, message)
        SELECT id, (SELECT max(attempt) FROM task_log WHERE task_id = id), p_by, 'end',
               concat_ws(': ', p_state::text, reason, message)
          FROM finished
        ON CONFLICT DO NOTHING
    )
    SELECT EXISTS (SELECT FROM finished)
$$;

DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['poiesis_api', 'poiesis_recorder'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION finish_task FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO poiesis_api, poiesis_recorder;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    task, task_tag, backend_parameter, executor, executor_env, input, output, volume,
    task_log, executor_log, output_file_log, system_log TO poiesis_api;
GRANT EXECUTE ON FUNCTION finish_task TO poiesis_api;

-- migrate:down
DROP FUNCTION finish_task;
DROP TABLE system_log, output_file_log, executor_log, task_log, volume, output, input, executor_env, executor,
    backend_parameter, task_tag, task;
DROP FUNCTION guard_task_state, is_terminal;
DROP TYPE reporter, tes_file_type, tes_state;
