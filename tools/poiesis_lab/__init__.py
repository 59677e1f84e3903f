"""A real Kubernetes cluster, and the images it needs, on one machine with or without an image registry.

`python -m poiesis_lab up` starts it; stories about node failures create a second one with two nodes. Tests
import `cluster`, `images`, `services` and `backends`.
"""
