import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # secret_server: a name that no other member has
