"""Plots are drawn of the results that exist, and load nothing from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

QUEUE = [{"queued": size, "lease_best_ms": 2.0} for size in (1000, 10_000)]


def drawn(folder: Path) -> list[Path]:
    """Return the plots of a process of its own: pygal installs an import hook, about which Python warns."""
    command = [sys.executable, "-m", "poiesis_bench.plots", str(folder)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(line) for line in output.splitlines()]


def test_plot_without_its_result_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "queue.json").write_text(json.dumps({"data": QUEUE}))
    assert drawn(tmp_path) == [tmp_path / "queue.svg"]


def test_plot_names_its_sizes_and_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "queue.json").write_text(json.dumps({"data": QUEUE}))
    (path,) = drawn(tmp_path)
    text = path.read_text()
    assert "1,000" in text
    assert "10,000" in text
    assert not re.search(r"(?:src|href)=\"http", text)
