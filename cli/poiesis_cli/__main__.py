"""`python -m poiesis_cli` is `poiesis`."""

import sys

from poiesis_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
