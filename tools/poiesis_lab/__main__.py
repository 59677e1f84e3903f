"""`python -m poiesis_lab`: bring the cluster up, take it down, say what runs, build every image."""

import argparse
import sys
import time
from pathlib import Path

from poiesis_lab.errors import LabError
from poiesis_lab.shell import say

_DESCRIPTION = """\
A Kubernetes cluster for Poiesis's end-to-end tests, made by kind on this machine. Where an image registry
answers, images are pulled; where none does, the same images are built from Debian and Go packages, once.
"""
_EPILOG = """\
environment:
  POIESIS_CACHE      where everything made is kept (default ~/.cache/poiesis)
  POIESIS_REGISTRY   yes | no: whether images can be pulled, instead of trying
  POIESIS_BOOTSTRAP  never: install no package and start no docker daemon, say what to do instead
  POIESIS_KUBERNETES the cluster's Kubernetes: 1.29, 1.34 (default) or 1.37; one of each can run at a time
  POIESIS_LAB        the name that clusters and containers start with, instead of choosing one
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
        help="a cluster that is proven to work: the running one, else a new one",
        description="Bring the cluster up and prove that it runs a Pod. Prints the path of its kubeconfig.",
    )
    up.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="PATH",
        help="use the cluster that this file names instead of making one; its images are yours to push",
    )
    commands.add_parser(
        "down", help="remove what the lab made; what it built and downloaded stays in the cache"
    )
    commands.add_parser("status", help="say what runs")
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
        say(f"lab: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nlab: interrupted; the next run goes on from what is finished")
        return 130
    say(f"lab: {arguments.command} took {time.monotonic() - started:.1f} s")
    return 0


def _run(arguments: argparse.Namespace) -> None:
    from poiesis_lab import (
        cluster,
        images,
        prune,
        services,
        teardown,
    )  # late: --help needs none of what they import

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
