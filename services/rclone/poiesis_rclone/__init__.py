"""Moves the data of a TES task by rclone."""
