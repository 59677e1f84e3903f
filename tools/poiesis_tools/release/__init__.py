"""`make release`: everything a release has, below build/release. `__main__` is the entry point."""
