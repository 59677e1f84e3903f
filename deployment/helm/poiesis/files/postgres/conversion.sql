-- Give the superuser that initdb made (oid 10) the name postgres, and all objects of this database to a new role.
-- REASSIGN OWNED refuses this role, because the system needs its other objects. One transaction: all of it or nothing.
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '5s'; -- the services are connected; roles.sh tries again
ALTER ROLE poiesis RENAME TO postgres;
CREATE ROLE poiesis LOGIN;
DO $$
DECLARE
    statement text;
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO poiesis', current_database());
    EXECUTE (
        SELECT coalesce(string_agg(format('ALTER SCHEMA %I OWNER TO pg_database_owner', nspname), ';'), 'SELECT')
          FROM pg_namespace WHERE nspname = 'public' AND nspowner = 10
    );
    FOR statement IN
        SELECT format('ALTER SCHEMA %I OWNER TO poiesis', nspname)
          FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384
        UNION ALL
        -- The sequences and indexes of a table follow it.
        SELECT format('ALTER %s %s OWNER TO poiesis',
                      CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                   ELSE 'TABLE' END,
                      oid::regclass)
          FROM pg_class c
         WHERE relowner = 10 AND oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relpersistence <> 't'
           AND relnamespace <> 'pg_toast'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i', 'e'))
        UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO poiesis', t.oid::regtype)
          FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE typowner = 10 AND t.oid >= 16384 AND (typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
           AND NOT EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_type'::regclass AND objid = t.oid AND deptype = 'e')
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO poiesis', oid::regprocedure)
          FROM pg_proc p
         WHERE proowner = 10 AND oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_depend
                            WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype IN ('i', 'e'))
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
COMMIT;
