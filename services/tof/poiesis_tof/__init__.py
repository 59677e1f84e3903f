"""Sends the outputs of a TES task to where they belong."""
