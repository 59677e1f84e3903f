"""Sends the outputs of a TES task to their URLs."""
