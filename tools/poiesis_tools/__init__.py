"""Commands for developers: checks, tests, locks."""
