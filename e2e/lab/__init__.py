"""A real Kubernetes cluster, and the images it needs, on one machine with or without an image registry.

`python -m lab up` brings it up; tests import `lab.cluster`, `lab.images`, `lab.services` and `lab.backends`.
"""
