"""A real Kubernetes cluster, and the images it needs, on one machine with or without an image registry.

`python -m poiesis_lab up` brings it up; stories in which a node fails make a second one, of two nodes. Tests
import `cluster`, `images`, `services` and `backends`.
"""
