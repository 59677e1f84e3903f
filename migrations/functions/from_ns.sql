-- Unix time in nanoseconds, as the helper writes it.
CREATE OR REPLACE FUNCTION from_ns(ns bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_timestamp(ns / 1000000000.0);
REVOKE ALL ON FUNCTION from_ns(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION from_ns(bigint) TO poiesis_api; -- calls record_executors
