"""The conformance kit of the filer contract, version 1: docs/reference/filers.md says how to use it."""
