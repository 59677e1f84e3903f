-- Tags whose values are longer than an index row can hold (some 2700 bytes).
--
-- The index has the first 256 characters of a value; lists compare them and the whole value. An earlier release
-- compares the whole value only, so it uses the index by key alone until it is replaced.

-- migrate:up
DROP INDEX task_tag_by_value;
CREATE INDEX task_tag_by_value ON task_tag (key, left(value, 256));

-- migrate:down
DROP INDEX task_tag_by_value;
CREATE INDEX task_tag_by_value ON task_tag (key, value);
