-- The Kubernetes namespace that a task runs in.
--
-- It is chosen by the creator's groups when the task is created. NULL: the namespace of the services, where every
-- task of an earlier release runs. An api of the earlier release creates tasks without it; the first lease of such
-- a task sets it.

-- migrate:up
ALTER TABLE task ADD COLUMN namespace text
    CHECK (namespace ~ '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$');

-- migrate:down
ALTER TABLE task DROP COLUMN namespace;
