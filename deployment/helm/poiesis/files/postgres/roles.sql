-- Make the roles of Poiesis as they should be. May run at any time, and again.
SET client_min_messages = warning;
SET log_statement = 'none'; -- statements below contain passwords
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
\getenv owner_password OWNER_PASSWORD
\getenv api_password API_PASSWORD
\getenv recorder_password RECORDER_PASSWORD
BEGIN;
SET LOCAL lock_timeout = '5s';
SELECT pg_advisory_xact_lock(1886349669); -- of poiesis_migrations.roles: two ALTER ROLE at once fail
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['poiesis', 'poiesis_api', 'poiesis_recorder'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
    DROP ROLE IF EXISTS poiesis_conversion;
    -- The migrations set connection limits and timeouts of the two service roles.
    ALTER ROLE poiesis LOGIN NOSUPERUSER CREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;
    IF current_setting('server_version_num')::integer >= 160000 THEN
        EXECUTE 'GRANT poiesis_api, poiesis_recorder TO poiesis WITH ADMIN TRUE, INHERIT FALSE, SET FALSE';
    END IF;
    ALTER ROLE postgres PASSWORD NULL;
    IF (SELECT datdba FROM pg_database WHERE datname = current_database()) <> 'poiesis'::regrole THEN
        EXECUTE format('ALTER DATABASE %I OWNER TO poiesis', current_database());
    END IF;
    -- What only a superuser may revoke; the migrations revoke the rest.
    EXECUTE (
        SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', string_agg(oid::regprocedure::text, ', '))
          FROM pg_proc
         WHERE pronamespace = 'pg_catalog'::regnamespace
           AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_import', 'lo_open')
    );
END
$$;
SELECT format('ALTER ROLE poiesis PASSWORD %L', :'owner_password') \gexec
SELECT format('ALTER ROLE poiesis_api LOGIN PASSWORD %L', :'api_password') \gexec
SELECT format('ALTER ROLE poiesis_recorder LOGIN PASSWORD %L', :'recorder_password') \gexec
COMMIT;
