"""`python -m demo`: from a fresh checkout to aligned reads, on a real cluster."""
