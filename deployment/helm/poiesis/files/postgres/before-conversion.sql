-- A superuser for the conversion: a role cannot rename itself. Without a password it cannot log in by TCP.
SET client_min_messages = warning;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'poiesis_conversion') THEN
        CREATE ROLE poiesis_conversion SUPERUSER LOGIN;
    END IF;
END
$$;
