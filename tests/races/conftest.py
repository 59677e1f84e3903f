"""The modules beside the test: their names are no other member's."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
