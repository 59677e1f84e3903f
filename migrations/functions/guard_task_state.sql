-- Trigger of task: reject a change of a terminal state, and a step back. Only a new attempt returns to QUEUED.
CREATE OR REPLACE FUNCTION guard_task_state() RETURNS trigger LANGUAGE plpgsql AS $$
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
