"""Helpers of the end-to-end stories, the demo and chaos. They import no service."""
