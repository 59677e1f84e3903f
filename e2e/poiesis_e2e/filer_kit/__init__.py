"""The conformance kit of the filer contract, version 1: docs/filers.md says how to use it."""
