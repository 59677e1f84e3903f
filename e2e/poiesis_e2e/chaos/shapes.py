"""The shapes of tasks: the submitted documents, and the results that a client must see. Pure.

Every executor first reports its start to the ledger, prints numbered lines over some seconds, reports its end
and exits. Its expected output follows from the same values.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal

from poiesis_e2e.tes_client import Document, Executor, State

Stream = Literal["stdout", "stderr"]
SiteName = Literal["claims", "disks"]  # by volume type: pvc or emptyDir

# Each start has its own uuid, so a retried request counts once and a second start counts twice.
_SCRIPT = """\
ledger=$0 lines=$1 seconds=$2 code=$3
start=$(cat /proc/sys/kernel/random/uuid)
notify() { until wget -q -O /dev/null "$ledger/$1/$start" 2>/dev/null; do sleep 0.3; done; }
notify started
<work>
each=$(((lines + seconds) / (seconds + 1)))
i=0
while [ $i -lt $lines ]; do
  i=$((i + 1))
  echo "line $i"
  [ $((i % each)) -ne 0 ] || [ $i -eq $lines ] || sleep 1
done
echo "$lines lines" >&2
notify ended
exit $code
"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One executor. `work`: shell code that runs first; `first_words`: its output."""

    lines: int
    seconds: int
    exit_code: int = 0
    ignore_error: bool = False
    work: str = ""
    first_words: str = ""

    @property
    def failed(self) -> bool:
        """Return whether no later executor may start."""
        return self.exit_code != 0 and not self.ignore_error

    def printed(self, stream: Stream) -> str:
        """Return its complete output on this stream."""
        if stream == "stderr":
            return f"{self.lines} lines\n"
        return self.first_words + "".join(f"line {number}\n" for number in range(1, self.lines + 1))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One kind of task. `output`: content of the stored object; `gigabytes`: its `disk_gb`, if any."""

    name: str
    steps: tuple[Step, ...]
    input: str | None = None
    output: str | None = None
    gigabytes: float | None = None
    canceled: bool = False

    @property
    def running(self) -> tuple[Step, ...]:
        """Return the steps that start without a cancel: up to the first that fails."""
        count = next((index for index, step in enumerate(self.steps, 1) if step.failed), len(self.steps))
        return self.steps[:count]

    @property
    def natural_end(self) -> State:
        """Return the outcome without a cancel, regardless of kills."""
        return "EXECUTOR_ERROR" if any(step.failed for step in self.steps) else "COMPLETE"


def _quick(_: Random) -> Shape:
    return Shape(name="quick", steps=(Step(lines=1, seconds=0),))


def _several(rng: Random) -> Shape:
    steps = tuple(Step(lines=20, seconds=rng.randint(1, 8)) for _ in range(rng.randint(2, 4)))
    return Shape(name="several", steps=steps)


def _data(rng: Random) -> Shape:
    """Append to a file, so that an executor that ran twice is visible."""
    content = f"{rng.getrandbits(64):016x}\n" * 1000
    steps = (
        Step(lines=10, seconds=rng.randint(1, 5), work="cat /in/data >>/out/data"),
        Step(lines=10, seconds=rng.randint(1, 5), work="echo and more >>/out/data"),
    )
    return Shape(name="data", steps=steps, input=content, output=content + "and more\n")


def _printing(rng: Random) -> Shape:
    return Shape(name="printing", steps=(Step(lines=rng.randint(2000, 4000), seconds=rng.randint(10, 25)),))


def _failing(rng: Random) -> Shape:
    steps = (
        Step(lines=10, seconds=rng.randint(1, 5)),
        Step(lines=100, seconds=rng.randint(1, 5), exit_code=rng.randint(1, 120)),
        Step(lines=1, seconds=0),
    )
    return Shape(name="failing", steps=steps)


def _failing_with_output(rng: Random) -> Shape:
    steps = (
        Step(
            lines=100,
            seconds=rng.randint(1, 8),
            exit_code=rng.randint(1, 120),
            work="echo as far as it got >>/out/data",
        ),
        Step(lines=1, seconds=0),
    )
    return Shape(name="failing with output", steps=steps, output="as far as it got\n")


def _ignored(rng: Random) -> Shape:
    steps = (
        Step(lines=10, seconds=rng.randint(1, 8), exit_code=rng.randint(1, 120), ignore_error=True),
        Step(lines=10, seconds=rng.randint(1, 5)),
    )
    return Shape(name="ignored", steps=steps)


def _canceled(rng: Random) -> Shape:
    """Run long, or about as long as the delay of the cancel, so that some of them race."""
    steps = tuple(Step(lines=50, seconds=rng.choice((2, 4, 45))) for _ in range(rng.randint(1, 2)))
    return Shape(name="canceled", steps=steps, canceled=True)


def _volume(rng: Random) -> Shape:
    steps = (
        Step(lines=5, seconds=rng.randint(1, 6), work="echo one >>/shared/it"),
        Step(
            lines=5,
            seconds=rng.randint(1, 6),
            work="echo two >>/shared/it; cat /shared/it",
            first_words="one\ntwo\n",
        ),
    )
    return Shape(name="volume", steps=steps, gigabytes=0.05)


MAKERS = (
    _quick,
    _several,
    _data,
    _printing,
    _failing,
    _failing_with_output,
    _ignored,
    _canceled,
    _volume,
)


def document(shape: Shape, *, name: str, image: str, ledger: str, bucket: str) -> Document:
    """Return the body of a POST. `name`: of this POST; `ledger`: URL; `bucket`: URL prefix of keys."""
    made: Document = {
        "name": name,
        "executors": [
            _executor(step, image, f"{ledger}/{name}/{number}") for number, step in enumerate(shape.steps)
        ],
    }
    if shape.input is not None:
        made["inputs"] = [{"path": "/in/data", "url": bucket + input_key(shape.input)}]
    if shape.output is not None:
        made["outputs"] = [{"path": "/out/data", "url": bucket + output_key(name)}]
    if shape.gigabytes is not None:
        made["volumes"] = ["/shared"]
        made["resources"] = {"disk_gb": shape.gigabytes}
    return made


def input_key(content: str) -> str:
    """Return the key of an input in the bucket."""
    return f"in/{content[:16]}"


def output_key(name: str) -> str:
    """Return the key of a task's output in the bucket."""
    return f"out/{name}"


def _executor(step: Step, image: str, ledger: str) -> Executor:
    values = (ledger, str(step.lines), str(step.seconds), str(step.exit_code))
    made: Executor = {"image": image, "command": ["sh", "-c", _SCRIPT.replace("<work>", step.work), *values]}
    if step.ignore_error:
        made["ignore_error"] = True
    return made
