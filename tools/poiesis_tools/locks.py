"""Renew every requirements lock from its requirements.in: hashes, no index, no host."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from poiesis_tools.workspace import ROOT, members

OPTIONS = [
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
    "--no-annotate",
    "--quiet",
]


def lock(target: Path, sources: Sequence[Path]) -> None:
    """Compile requirements into a lock. Local wheel directories are ignored: no other machine has them."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "UV_FIND_LINKS"}
    }
    inputs = [str(source.relative_to(ROOT)) for source in sources]
    output = str(target.relative_to(ROOT))
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *inputs, "--output-file", output],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(f"locked {output}")


def main() -> int:
    """Lock each image, each tool that the lab installs, and the development environment."""
    images = [path for one in members() if (path := one.directory / "requirements.in").exists()]
    images.append(ROOT / "services/helper/requirements.in")
    others = sorted(ROOT.glob("tools/poiesis_lab/recipes/*.in"))
    for source in (*images, *others):
        lock(source.with_name(source.name.replace(".in", ".lock")), [source])
    lock(ROOT / "requirements-dev.lock", [ROOT / "requirements-dev.in", *images])
    return 0


if __name__ == "__main__":
    sys.exit(main())
