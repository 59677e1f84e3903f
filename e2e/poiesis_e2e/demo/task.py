"""The demo's task, and the check of its results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from poiesis_e2e.demo.data import ExampleFiles
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Document, Executor, Task

BGZF_MAGIC = b"\x1f\x8b\x08\x04"  # SAM specification, 4.1: a BAM file is gzip with extra fields
MAPPED_AT_LEAST = 90.0  # percent; these reads are simulated from this genome, with errors
READS = 20_000  # 10 000 pairs
REFERENCE_PATH = "demo/lambda_virus.fa"
LOGS = ("align.log", "index.log", "sort.log")


class WrongResult(Exception):
    """The results of the finished task are not as expected."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results. `flagstat`: output of samtools."""

    flagstat: str
    mapped_percent: float
    logs: Mapping[str, str]


def served(files: ExampleFiles) -> dict[str, bytes]:
    """Return the files that the HTTP server serves, by path."""
    return {REFERENCE_PATH: files.reference}


async def upload_reads(files: ExampleFiles, bucket: Bucket) -> None:
    """Store the reads under the keys of the task's inputs."""
    await bucket.put("reads/reads_1.fq.gz", files.reads_1)
    await bucket.put("reads/reads_2.fq.gz", files.reads_2)


def document(image: str, web: str, bucket: Bucket) -> Document:
    """Return the task: index the reference, align the reads, sort and count the alignments. `web`: URL of the
    HTTP server."""

    def run(*command: str) -> Executor:
        return {"image": image, "command": list(command)}

    return {
        "name": "align phage lambda",
        "description": "bowtie2 and samtools on the example reads of bowtie2",
        "tags": {"demo": "lambda"},
        "resources": {"ram_gb": 0.5, "disk_gb": 1},
        "inputs": [
            {"path": "/data/reference/lambda.fa", "url": f"{web}/{REFERENCE_PATH}", "type": "FILE"},
            {"path": "/data/reads", "url": bucket.url("reads"), "type": "DIRECTORY"},
        ],
        "volumes": ["/data/index", "/data/work"],
        "executors": [
            {
                **run("bowtie2-build", "/data/reference/lambda.fa", "/data/index/lambda"),
                "stdout": "/data/logs/index.log",
            },
            {
                **run(
                    *("bowtie2", "-x", "/data/index/lambda", "-S", "/data/work/aligned.sam"),
                    *("-1", "/data/reads/reads_1.fq.gz", "-2", "/data/reads/reads_2.fq.gz"),
                ),
                "stderr": "/data/logs/align.log",
            },
            {
                **run("samtools", "sort", "-o", "/data/results/aligned.bam", "/data/work/aligned.sam"),
                "stderr": "/data/logs/sort.log",
            },
            {
                **run("samtools", "flagstat", "/data/results/aligned.bam"),
                "stdout": "/data/results/flagstat.txt",
            },
        ],
        "outputs": [
            {"path": "/data/results/aligned.bam", "url": bucket.url("results/aligned.bam")},
            {"path": "/data/results/flagstat.txt", "url": bucket.url("results/flagstat.txt")},
            {"path": "/data/logs/*.log", "path_prefix": "/data/logs", "url": bucket.url("results/logs")},
        ],
    }


async def verify(task: Task, bucket: Bucket) -> Results:
    """Fetch and check the results; raise WrongResult for a difference."""
    if task["state"] != "COMPLETE":
        raise WrongResult(f"the task ended as {task['state']}: {_why(task)}")
    found = await bucket.keys("results/")
    logs_wanted = [f"results/logs/{name}" for name in LOGS]
    wanted = sorted(["results/aligned.bam", "results/flagstat.txt", *logs_wanted])
    if found != wanted:
        raise WrongResult(f"the bucket holds {found}, not {wanted}")
    bam = await bucket.get("results/aligned.bam")
    if not bam.startswith(BGZF_MAGIC):
        raise WrongResult(f"results/aligned.bam is no BAM file: it starts with {bam[:4]!r}")
    flagstat = await bucket.text("results/flagstat.txt")
    reads, percent = mapped(flagstat)
    if reads != READS or percent < MAPPED_AT_LEAST:
        raise WrongResult(f"{percent} % of {reads} reads are mapped, not > {MAPPED_AT_LEAST} % of {READS}")
    logs = {name: await bucket.text(f"results/logs/{name}") for name in LOGS}
    if "overall alignment rate" not in logs["align.log"]:
        raise WrongResult(f"results/logs/align.log is not the output of bowtie2: {logs['align.log'][:300]!r}")
    return Results(flagstat=flagstat, mapped_percent=percent, logs=logs)


def mapped(flagstat: str) -> tuple[int, float]:
    """Return the number of reads and the percentage mapped, from the output of `samtools flagstat`."""
    reads = re.search(r"^(\d+) \+ \d+ primary$", flagstat, re.MULTILINE)
    percent = re.search(r"primary mapped \(([\d.]+)%", flagstat)
    if reads is None or percent is None:
        raise WrongResult(f"unexpected output of samtools flagstat:\n{flagstat}")
    return int(reads[1]), float(percent[1])


def _why(task: Task) -> str:
    lines = [line for log in task.get("logs", ()) for line in log.get("system_logs", ())]
    lines += [
        f"executor {index} exited with {log['exit_code']}: {log.get('stderr', '').strip()[-500:]}"
        for attempt in task.get("logs", ())
        for index, log in enumerate(attempt["logs"])
        if log["exit_code"]
    ]
    return "\n".join(lines) or "no reason in the task's logs"
