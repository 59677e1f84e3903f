"""TES documents of stored tasks: SQL that makes them, for the services that read Postgres."""
