"""Requests to the Kubernetes API, as plain JSON."""
