import sys
from pathlib import Path

# `s3_for_tests` and `served_for_tests`.
sys.path.insert(0, str(Path(__file__).parents[3] / "packages/transfer/tests"))
