"""Moves files between the volume of a TES task and shared volumes."""
