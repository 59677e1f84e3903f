"""`python -m poiesis_lab`: start or remove the cluster, show its status, build every image."""

import argparse
import sys
import time
from pathlib import Path

from poiesis_lab.errors import LabError
from poiesis_lab.shell import report

_DESCRIPTION = """\
A Kubernetes cluster for Poiesis's end-to-end tests, made by kind on this machine. Where an image registry
answers, images are pulled; where none does, the same images are built from Debian and Go packages, once.
"""
_EPILOG = """\
environment:
  POIESIS_CACHE      folder of everything that the lab builds or downloads (default ~/.cache/poiesis)
  POIESIS_REGISTRY   yes | no: whether images can be pulled (default: test it)
  POIESIS_BOOTSTRAP  never: install no package, start no docker daemon, and print instructions instead
  POIESIS_KUBERNETES the cluster's Kubernetes: 1.29, 1.34 (default) or 1.37; one of each can run at a time
  POIESIS_LAB        the prefix of the names of clusters and containers (default: chosen per checkout)
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m poiesis_lab",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="up | down | status | images")
    up = commands.add_parser(
        "up",
        help="use the running cluster or create one, and check that it works",
        description="Start the cluster and check that it runs a Pod. Prints the path of its kubeconfig.",
    )
    up.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="PATH",
        help="use the cluster of this kubeconfig instead of creating one; push the images yourself",
    )
    commands.add_parser(
        "down", help="remove clusters and containers of the lab; builds and downloads stay in the cache"
    )
    commands.add_parser("status", help="show what is running")
    images = commands.add_parser(
        "images",
        help="build every image: bases, services, migrations, demo",
        description="Build every image, print the references, and load them into the cluster if it is up.",
    )
    images.add_argument("names", nargs="*", metavar="NAME", help="only these services (default: all)")
    images.add_argument(
        "--platform", metavar="OS/ARCH", help="for instance linux/arm64 (default: this machine's)"
    )
    images.add_argument("--bases", action="store_true", help="only the base and test images, no services")
    return top


def main() -> int:
    arguments = parser().parse_args()
    started = time.monotonic()
    try:
        _run(arguments)
    except LabError as error:
        report(f"lab: {error}")
        return 1
    except KeyboardInterrupt:
        report("\nlab: interrupted; the next run reuses all finished steps")
        return 130
    report(f"lab: {arguments.command} took {time.monotonic() - started:.1f} s")
    return 0


def _run(arguments: argparse.Namespace) -> None:
    # Imported late: --help does not need them.
    from poiesis_lab import (
        cluster,
        images,
        prune,
        services,
        teardown,
    )

    match arguments.command:
        case "up":
            print(cluster.up(arguments.kubeconfig).kubeconfig)
        case "down":
            teardown.down()
        case "status":
            print(cluster.status())
        case "images":
            bases = images.images()
            if arguments.bases:
                for name, reference in vars(bases).items():
                    print(f"{name}\t{reference}")
                return
            built = services.build(arguments.names or None, platform=arguments.platform)
            for name, reference in built.items():
                print(f"{name}\t{reference}")
            prune.everything()
            if arguments.platform is None and cluster.is_own_running():
                cluster.current().load(built.values())


if __name__ == "__main__":
    sys.exit(main())
