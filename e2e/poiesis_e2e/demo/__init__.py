"""`python -m poiesis_e2e.demo`: from a fresh checkout to aligned reads, on a real cluster."""
