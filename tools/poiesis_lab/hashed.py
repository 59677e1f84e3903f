"""Small images and programs that are built locally, with or without a registry.

Each is named by the hash of its sources, so an existing one is current.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cache as once
from pathlib import Path

from poiesis_lab import cache, docker, host
from poiesis_lab.shell import run, step

_TARGETS = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}


def remembered(name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return the references that `make` returned for the lab's current files, if docker has the images."""
    made = recall(name)
    if made is None:
        made = make()
        cache.write_state(f"images{name}", {"key": cache.lab_key(), "references": made})
    return made


def recall(name: str) -> dict[str, str] | None:
    """Return the recorded result of `remembered`; None if an image would have to be built."""
    known = cache.read_state(f"images{name}")
    references = known.get("references")
    if known.get("key") != cache.lab_key() or not isinstance(references, dict):
        return None
    made = {str(purpose): str(reference) for purpose, reference in references.items()}
    return made if docker.has_images(made.values()) else None


def from_dockerfile(name: str, dockerfile: str, files: Mapping[str, Path] | None = None) -> str:
    """Build an image from `dockerfile` (text) and `files` (name in the build context -> file).

    Its tag is their hash. A base image named in the text is part of the hash by its own tag.
    """
    given = files or {}
    facts = [dockerfile, *sorted((target, _content(path)) for target, path in given.items())]
    image = f"poiesis-lab/{name}:{cache.hash_of(facts)}"
    if docker.has_image(image):
        return image
    with cache.lock(), step(f"build {name}"), cache.workspace() as context:
        (context / "Dockerfile").write_text(dockerfile)
        for target, path in given.items():
            (context / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, context / target)
        docker.build(context, image)
    return image


def _content(path: Path) -> str:
    """Return a name for the content of `path`. Large cached files have a hash in their names."""
    kept = path.parent in (cache.directory() / "bin", cache.directory() / "maven")
    return path.name if kept else cache.hash_of([], [path])


@once
def static_program(source: Path) -> Path:
    """Compile `source` (C) to a static program with the PyPI package ziglang."""
    architecture = host.architecture()
    target = cache.directory() / "bin" / f"{source.stem}-{cache.hash_of([architecture], [source])}"
    if target.exists():
        target.touch()
        return target
    with cache.lock(), step(f"compile {source.name}"), cache.aside(target) as path:
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", _TARGETS[architecture], "-static"]
        cached = {"ZIG_GLOBAL_CACHE_DIR": str(cache.directory() / "zig")}
        run([*zig, "-Os", "-s", "-Wall", "-Werror", "-o", path, source], env=cached)
    return target
