"""The environment of measurements: the lab's cluster, a separate release, and a bucket."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poiesis_e2e.install import (
    STORAGE_SECRET,
    Release,
    Values,
    chart_values,
    endpoint_of,
    install,
    merged,
    storage_secret,
    uninstall,
)
from poiesis_e2e.storage import Bucket, make_bucket
from poiesis_lab import backends, cluster, images, services
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

NAME = "poiesis-bench"
CPU = "30m"  # CPU request of an executor, in a task and in a Job: twenty at once fit on the node


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The running environment."""

    cluster: Cluster
    release: Release
    bucket: Bucket
    images: Images
    built: dict[str, str]
    upgrade: Callable[[Values], Release]  # installs the release again, with additional values


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--volume",
        choices=["emptyDir", "ephemeral", "pvc"],
        default="emptyDir",
        help="the task volume (default: emptyDir, so that the provisioner's seconds are not counted)",
    )
    made.add_argument("--json", action="store_true", help="print the samples as JSON and no table")
    made.add_argument("--keep", action="store_true", help="leave the release installed")
    return made


@contextmanager
def stage(volume: str, *, keep: bool) -> Iterator[Stage]:
    """Start the environment, and remove the release at the end."""
    running = cluster.up()
    bases = images.images()
    built = services.build_and_load()
    minio = backends.start_minio()
    endpoint = endpoint_of(minio)
    bucket = make_bucket(endpoint)
    common = {"config": {"volume": {"type": volume}, "executors": {"defaultResources": {"cpu": CPU}}}}

    def upgrade(more: Values) -> Release:
        return install(
            running,
            name=NAME,
            namespace=NAME,
            values=chart_values(built, endpoint, bases.postgres, merged(common, more)),
            secrets={STORAGE_SECRET: storage_secret(endpoint)},
        )

    try:
        yield Stage(
            cluster=running,
            release=upgrade({}),
            bucket=bucket,
            images=bases,
            built=built,
            upgrade=upgrade,
        )
    finally:
        bucket.remove()
        if not keep:
            uninstall(running, NAME, NAME)


def table(rows: list[list[str]]) -> str:
    """Format rows with aligned columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
