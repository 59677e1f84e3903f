"""Build every image from packages of Debian, PyPI and Go modules, where no image registry responds.

`images.py` has the functions of `poiesis_lab.registry`, so the rest of the lab calls either of them.
"""
