"""The docker command line, as the lab uses it."""

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache as once
from pathlib import Path
from typing import BinaryIO

from poiesis_lab import cache, host
from poiesis_lab.errors import LabError
from poiesis_lab.shell import CommandFailed, report, run, step, succeeds
from poiesis_lab.versions import BUSYBOX_IMAGE, Version

_REGISTRY_ANSWER_KEPT_S = 24 * 3600
_REGISTRY_PROBE_S = 12
_BUILDKIT_IS_A_PLUGIN_SINCE = 23


@once
def binary() -> str:
    """Return a docker client with BuildKit: by the buildx plugin, or built in."""
    candidates = dict.fromkeys(
        path for path in (host.find("docker"), "/usr/bin/docker") if path and Path(path).exists()
    )
    for candidate in candidates:
        version = Version.parse(run([candidate, "--version"]))
        if version.major < _BUILDKIT_IS_A_PLUGIN_SINCE or succeeds([candidate, "buildx", "version"]):
            return candidate
    if candidates:
        raise LabError(
            f"{', '.join(candidates)} cannot build: install docker's buildx plugin (docker-buildx)"
        )
    raise LabError("no docker client found: install docker, or Debian's docker.io")


def docker(*arguments: str | Path, timeout: float | None = None, input_text: str | None = None) -> str:
    return run([binary(), *arguments], timeout=timeout, input_text=input_text).strip()


def succeeds_with(*arguments: str | Path, timeout: float = 60) -> bool:
    """Return whether a docker command exits with 0; its output is dropped."""
    return succeeds([binary(), *arguments], timeout=timeout)


def output(*arguments: str | Path) -> bytes:
    """Return the raw output of a docker command."""
    command = [binary(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(command, done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def feed(*arguments: str | Path, stream: BinaryIO) -> None:
    """Run a docker command that reads `stream` from its standard input."""
    run([binary(), *arguments], stdin=stream)


def answers(seconds: float = 10) -> bool:
    """Return whether a docker daemon responds to this user, with any client."""
    client = host.find("docker")
    return client is not None and succeeds([client, "version"], timeout=seconds)


def has_image(reference: str) -> bool:
    return succeeds([binary(), "image", "inspect", reference])


def pull(reference: str) -> None:
    """Pull an image, unless docker has it."""
    if not has_image(reference):
        with step(f"pull {reference.partition('@')[0]}"):
            docker("pull", "--quiet", reference)


def has_images(references: Iterable[str]) -> bool:
    """Return whether docker has all images."""
    return succeeds([binary(), "image", "inspect", "--format", "{{.Id}}", *references])


def build(
    context: Path,
    tag: str,
    *,
    dockerfile: Path | None = None,
    arguments: Mapping[str, str] | None = None,
    platform: str | None = None,
) -> None:
    """Run `docker build` with BuildKit. Downloads may use the machine's CA bundle, the secret `ca`."""
    command: list[str | Path] = [binary(), "build", "--progress=plain", "-t", tag]
    if dockerfile is not None:
        command += ["-f", dockerfile]
    for name, value in (arguments or {}).items():
        command += ["--build-arg", f"{name}={value}"]
    if host.CA_BUNDLE.exists():
        command += ["--secret", f"id=ca,src={host.CA_BUNDLE}"]
    if platform is not None:
        command += ["--platform", platform]
    run([*command, context], env={"DOCKER_BUILDKIT": "1"})


def import_tar(tar: Path, tag: str, changes: Sequence[str]) -> None:
    """Create an image of one layer from a root file system; `changes` are Dockerfile lines."""
    options = [part for change in changes for part in ("--change", change)]
    docker("import", *options, tar, tag)


def container_facts(name: str) -> dict[str, object] | None:
    """Return `docker inspect` of a container; None if no container has that name."""
    if name not in docker("ps", "--all", "--filter", f"name={name}", "--format", "{{.Names}}").splitlines():
        return None
    facts: dict[str, object] = json.loads(docker("container", "inspect", name, timeout=30))[0]
    return facts


def remove(*containers: str) -> None:
    """Remove containers, running or not, with their anonymous volumes."""
    if containers:
        docker("rm", "--force", "--volumes", *containers)


def has_network(name: str) -> bool:
    return name in docker("network", "ls", "--format", "{{.Name}}").splitlines()


def address_in(network: str, container: str) -> str:
    """Return the IPv4 address of a container in a network."""
    form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return docker("container", "inspect", "--format", form, container)


def ipv4_subnets(network: str) -> list[str]:
    """Return the IPv4 networks (CIDR) of a docker network."""
    subnets = json.loads(docker("network", "inspect", network))[0]["IPAM"]["Config"]
    return [one["Subnet"] for one in subnets if ":" not in one["Subnet"]]


def ipv4_gateways(network: str) -> list[str]:
    """Return this machine's IPv4 addresses in a docker network."""
    subnets = json.loads(docker("network", "inspect", network))[0]["IPAM"]["Config"]
    return [one["Gateway"] for one in subnets if ":" not in one["Subnet"]]


@once
def registry_answers() -> bool:
    """Return whether images can be pulled; test it once a day, unless POIESIS_REGISTRY is yes or no."""
    configured = os.environ.get("POIESIS_REGISTRY")
    if configured is not None:
        if configured not in ("yes", "no"):
            raise LabError(f"POIESIS_REGISTRY must be yes, no or unset (to test it), got {configured!r}")
        return configured == "yes"
    known = cache.read_state("registry")
    asked_at = known.get("asked_at")
    if isinstance(asked_at, int | float) and 0 <= time.time() - asked_at < _REGISTRY_ANSWER_KEPT_S:
        return known.get("answers") is True
    refusal = _why_not_pulled()
    cache.write_state("registry", {"asked_at": time.time(), "answers": refusal is None})
    where = "pulled from a registry" if refusal is None else f"built from packages: {refusal}"
    report(f"lab: images are {where} (tested once a day; POIESIS_REGISTRY=yes|no overrides)")
    return refusal is None


def _why_not_pulled() -> str | None:
    """Return the reason if an image cannot be pulled, else None."""
    try:
        done = subprocess.run(
            [binary(), "pull", "--quiet", BUSYBOX_IMAGE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_REGISTRY_PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`docker pull {BUSYBOX_IMAGE}` took more than {_REGISTRY_PROBE_S} s"
    words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return None if done.returncode == 0 else f"`docker pull {BUSYBOX_IMAGE}` failed: {words[-1]}"
