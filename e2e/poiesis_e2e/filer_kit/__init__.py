"""The conformance kit of the filer contract, version 1: see docs/reference/filers.md."""
