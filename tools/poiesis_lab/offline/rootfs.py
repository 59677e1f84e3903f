"""Root file systems made of Debian packages by mmdebstrap, as docker images of one layer."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poiesis_lab import cache, docker, host
from poiesis_lab.cache import RECIPES
from poiesis_lab.shell import run, step


@dataclass(frozen=True, kw_only=True)
class RootFs:
    """Packages of a root file system and their processing. Hooks are files in recipes/.

    Variant `extract` only unpacks `packages` with their dependencies, and then runs `trim` on the tree;
    `minbase` installs them into a small Debian. `changes` are Dockerfile lines for the image.
    """

    name: str
    suite: str
    variant: str
    packages: tuple[str, ...]
    essential_hook: str | None = None
    customize_hooks: tuple[str, ...] = ()
    trim: str | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> list[Path]:
        names = (self.essential_hook, *self.customize_hooks, self.trim)
        return [RECIPES / name for name in names if name is not None]

    def key(self) -> str:
        values = [self.name, self.suite, self.variant, self.packages, dict(self.changes), host.architecture()]
        return cache.hash_of(values, self.files())

    def image(self) -> str:
        return f"poiesis-lab/{self.name}:{self.key()}"


def ensure(recipe: RootFs) -> str:
    """Return the image of `recipe`; build it if it is missing."""
    image = recipe.image()
    if docker.has_image(image):
        return image
    host.need_programs("mmdebstrap")
    what = f"make {recipe.name} from Debian {recipe.suite}"
    with cache.lock(), step(what), cache.workspace() as work:
        tar = work / "rootfs.tar"
        if recipe.variant == "extract":
            tree = work / "tree"
            _mmdebstrap(recipe, tree)
            if recipe.trim is not None:
                run([sys.executable, RECIPES / recipe.trim, tree])
            _pack(tree, tar)
        else:
            _mmdebstrap(recipe, tar)
        docker.import_tar(tar, image, [f"{name} {value}" for name, value in recipe.changes.items()])
    return image


def _mmdebstrap(recipe: RootFs, target: Path) -> None:
    command: list[str | Path] = [
        "mmdebstrap",
        f"--variant={recipe.variant}",
        f"--include={','.join(recipe.packages)}",
    ]
    if recipe.essential_hook is not None:
        command.append(f"--essential-hook={RECIPES / recipe.essential_hook}")
    command += [f"--customize-hook={RECIPES / name}" for name in recipe.customize_hooks]
    run([*command, recipe.suite, target])


def _pack(tree: Path, tar: Path) -> None:
    subprocess.run(["tar", "--numeric-owner", "-C", tree, "-cf", tar, "."], check=True)
