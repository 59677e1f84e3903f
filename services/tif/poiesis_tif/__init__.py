"""Stages the inputs of a TES task into its volume."""
