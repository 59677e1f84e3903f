"""The `poiesis` command: a client of any GA4GH TES 1.1 server.

It depends on HTTP and the specification, and imports no service of this project.
"""

from importlib.metadata import version

__version__ = version("poiesis-cli")
