"""The demo's data: real reads of phage lambda, from Debian's package bowtie2-examples."""

import gzip
from dataclasses import dataclass
from pathlib import Path

from poiesis_lab import cache, docker, images

_DOCKERFILE = Path(__file__).parent / "data.Dockerfile"
_NAMES = ("lambda_virus.fa.gz", "reads_1.fq.gz", "reads_2.fq.gz")


@dataclass(frozen=True, kw_only=True)
class ExampleFiles:
    """The reference genome (FASTA) and the two mates of each read (FASTQ, gzip)."""

    reference: bytes
    reads_1: bytes
    reads_2: bytes


def example_files() -> ExampleFiles:
    """Return the files from the cache, or download them with apt in an image: only docker is required."""
    folder = cache.directory() / "demo" / cache.hash_of([], [_DOCKERFILE])
    with cache.lock():
        if not all((folder / name).exists() for name in _NAMES):
            _download(folder)
    reference, reads_1, reads_2 = ((folder / name).read_bytes() for name in _NAMES)
    return ExampleFiles(reference=gzip.decompress(reference), reads_1=reads_1, reads_2=reads_2)


def _download(folder: Path) -> None:
    tag = f"poiesis-lab/demo-data:{folder.name}"
    with cache.workspace() as context:
        docker.build(
            context, tag, dockerfile=_DOCKERFILE, arguments={"DEBIAN_BASE": images.images().debian_base}
        )
    container = docker.docker("create", tag)
    try:
        for name in _NAMES:
            with cache.aside(folder / name) as path:
                docker.docker("cp", f"{container}:/{name}", path)
    finally:
        docker.docker("rm", container)
