"""Measurements of what must not grow: with rows in Postgres, with tasks in the queue, with Pods."""
