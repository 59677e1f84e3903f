"""Build the images of this repository when their files change, and copy them into the cluster."""

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from docker.utils.build import exclude_paths  # type: ignore[import-untyped]

from poiesis_lab import cache, cluster, docker, host, images, prune
from poiesis_lab.errors import LabError
from poiesis_lab.shell import step

ROOT = cache.HERE.parent.parent
_QEMU = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Paths of an image's Dockerfile and build context, relative to the repository's root."""

    dockerfile: str
    context: str = "."


def _sources() -> Iterator[tuple[str, Source]]:
    """Yield every Dockerfile by the name of its folder, the build context if it has a .dockerignore."""
    folders = [path.parent for path in ROOT.glob("services/*/Dockerfile")]
    folders += [ROOT / "migrations", ROOT / "e2e/poiesis_e2e/demo"]
    # The helper is first: other images copy from it.
    helper_first = sorted(folders, key=lambda path: (path.name != "helper", path))
    for folder in helper_first:
        relative = str(folder.relative_to(ROOT))
        own = (folder / ".dockerignore").exists()
        yield folder.name, Source(dockerfile=f"{relative}/Dockerfile", context=relative if own else ".")


SOURCES: Mapping[str, Source] = dict(_sources())


def build_and_load(names: Sequence[str] | None = None) -> dict[str, str]:
    """Build as `build` does, then copy the images into the cluster of the last `up`."""
    with cache.lock():
        built = build(names)
        cluster.current().load(built.values())
        return built


def build(names: Sequence[str] | None = None, *, platform: str | None = None) -> dict[str, str]:
    """Return image references by name, for `names` or for all; build those whose files have changed.

    `platform`: of docker, such as linux/arm64; raise LabError if docker cannot build for it.
    """
    wanted = list(SOURCES) if names is None else list(names)
    if unknown := [name for name in wanted if name not in SOURCES]:
        raise LabError(f"no such image: {', '.join(unknown)} (available: {', '.join(SOURCES)})")
    with cache.lock():
        bases = images.images()
        arguments = {
            "PYTHON_BASE": bases.python_base,
            "PYTHON_BUILD_BASE": bases.python_build_base,
            "DEBIAN_BASE": bases.debian_base,
        }
        built: dict[str, str] = {}
        for name in SOURCES:
            if name in wanted or (name == "helper" and _need_helper(wanted)):
                built[name] = _build(name, arguments, platform)
                if name == "helper":
                    arguments["HELPER_IMAGE"] = built[name]
        prune.note({f"{name} {platform or ''}": reference for name, reference in built.items()})
        return {name: built[name] for name in wanted}


def _need_helper(names: Collection[str]) -> bool:
    return any("HELPER_IMAGE" in declared_arguments(_text(name)) for name in names)


def _text(name: str) -> str:
    path = ROOT / SOURCES[name].dockerfile
    if not path.is_file():
        raise LabError(f"{SOURCES[name].dockerfile} does not exist, so the image {name} cannot be built")
    return path.read_text()


def _build(name: str, arguments: Mapping[str, str], platform: str | None) -> str:
    source, text = SOURCES[name], _text(name)
    given = {key: value for key, value in arguments.items() if key in declared_arguments(text)}
    context = (ROOT / source.context).resolve()
    dockerfile = ROOT / source.dockerfile
    files = [path for path in _in_context(context) if is_copied(path.relative_to(context), copied(text))]
    suffix = ""
    if platform is not None and platform != f"linux/{host.architecture()}":
        if reason := why_not_built(name, platform):
            raise LabError(reason)
        suffix = "-" + platform.rpartition("/")[2]
    tag = f"poiesis/{name}:{cache.hash_of([text, given], files, root=context)}{suffix}"
    if not docker.has_image(tag):
        with step(f"build {name}"):
            docker.build(context, tag, dockerfile=dockerfile, arguments=given, platform=platform)
    return tag


def why_not_built(name: str, platform: str) -> str | None:
    """Return why this machine cannot build an image for `platform`; None if it can.

    docker itself would fail later, with an exec format error, or label the image with the wrong platform.
    """
    if platform == f"linux/{host.architecture()}" or is_from_scratch(name):
        return None
    if not docker.registry_answers():
        return (
            f"cannot build {name} for {platform}: its base image was built on this machine, for linux/"
            f"{host.architecture()}, because no image registry answers.\n"
            f"Build it on a machine of that architecture, or where a registry answers."
        )
    architecture = platform.rpartition("/")[2]
    emulator = Path("/proc/sys/fs/binfmt_misc") / _QEMU.get(architecture, f"qemu-{architecture}")
    if not emulator.exists():
        return (
            f"cannot build {name} for {platform}: this machine has no emulator ({emulator}).\n"
            "Install an emulator (Debian: qemu-user-static), or build on a machine of that architecture."
        )
    return None


def is_from_scratch(name: str) -> bool:
    """Return whether an image has no base image."""
    return last_base(_text(name)) == "scratch"


def _in_context(context: Path) -> list[Path]:
    """Return the files of the build context, without those that .dockerignore excludes."""
    ignore = context / ".dockerignore"
    lines = [line.strip() for line in ignore.read_text().splitlines()] if ignore.exists() else []
    patterns = [line for line in lines if line and not line.startswith("#")]
    paths = [context / name for name in exclude_paths(str(context), [*patterns, "**/__pycache__"])]
    return sorted(path for path in paths if path.is_file())


def is_copied(path: Path, patterns: Collection[str]) -> bool:
    """Return whether a COPY of one of `patterns` includes `path`, directly or by a parent directory."""
    return any(_matches(candidate, patterns) for candidate in (path, *path.parents))


def _matches(path: Path, patterns: Collection[str]) -> bool:
    return any(_glob(pattern).fullmatch(path.as_posix()) for pattern in patterns)


@once
def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of COPY (Go's path.Match): `*` and `?` do not match a slash."""
    clean = pattern.removeprefix("./").strip("/") or "."
    return re.compile(re.escape(clean).replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return (INSTRUCTION, rest) of every instruction, with continuation lines joined, without comments."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.isalpha() and word.isupper():
            found.append((word, rest.strip()))
    return found


def declared_arguments(dockerfile: str) -> set[str]:
    return {rest.partition("=")[0].strip() for word, rest in instructions(dockerfile) if word == "ARG"}


def last_base(dockerfile: str) -> str:
    """Return the base of the last stage, as written."""
    bases = [rest.split() for word, rest in instructions(dockerfile) if word == "FROM"]
    if not bases:
        raise LabError("a Dockerfile without FROM")
    return next(part for part in bases[-1] if not part.startswith("--"))


def copied(dockerfile: str) -> list[str]:
    """Return the paths and patterns of the build context in COPY, ADD and bind mounts."""
    found: list[str] = []
    for word, rest in instructions(dockerfile):
        if word in ("COPY", "ADD"):
            found += _copy_sources(rest)
        elif word == "RUN":
            found += _bind_sources(rest)
    return found


def _copy_sources(rest: str) -> list[str]:
    flags: list[str] = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
        rest = rest.lstrip()
    if any(flag.startswith("--from=") for flag in flags):
        return []
    words: list[str] = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
    sources = [word for word in words[:-1] if not word.startswith("<<") and "://" not in word]
    if variable := [word for word in sources if "$" in word]:
        raise LabError(f"COPY {' '.join(variable)}: variables are not supported here; write the paths out")
    return sources


def _bind_sources(rest: str) -> list[str]:
    found = []
    for mount in re.findall(r"--mount=(\S+)", rest):
        options = dict(part.partition("=")[::2] for part in mount.split(","))
        if options.get("type", "bind") == "bind" and "from" not in options:
            found.append(options.get("source") or options.get("src") or ".")
    return found
