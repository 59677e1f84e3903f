"""Helpers of the end-to-end stories, the demo and the chaos test. They import no service."""
