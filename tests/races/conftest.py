"""Make the modules next to the test importable; their names are unique in the workspace."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
