"""Bring a database up to the schema of this release, and let the services log in to it."""
