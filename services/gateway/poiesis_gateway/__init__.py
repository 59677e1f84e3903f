"""Gateway: accepts the recorders' reports over HTTPS and applies them in Postgres."""
