"""The containers of a TaskPod, as the recorder (environment) and the controller (Pod annotation) read them.

Standard library only.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from poiesis_models.labels import prepare_name

_OPTIONAL = {"prepared", "streams", "rescues", "files_only"}


class MalformedPlan(ValueError):
    """The text is not a plan."""


@dataclass(frozen=True, kw_only=True)
class PodPlan:
    """The containers of a TaskPod between the recorder and `pause`, in the order in which they run.

    `prepared`: indexes of executors before which `prepare-<index>` runs in the same image.
    `ignore_error`: one flag per executor. `upload_on_error`: outputs are sent even after a failed executor.
    `streams`: sidecars that stream inputs into FIFOs while the executor runs, hence not part of the order.
    `rescues`: sidecars, each of which does the work of one of `outputs` after an executor was killed.
    `files_only`: the recorder has no access to the Kubernetes API, and the controller reports what the Pod's
    status has.
    """

    inputs: tuple[str, ...] = ()
    executors: tuple[str, ...]
    ignore_error: tuple[bool, ...]
    prepared: tuple[int, ...] = ()
    outputs: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    rescues: tuple[str, ...] = ()
    upload_on_error: bool = True
    preemptible: bool = False
    files_only: bool = False

    def __iter__(self) -> Iterator[str]:
        """Yield the container names in order."""
        yield from self.inputs
        for index, name in enumerate(self.executors):
            if index in self.prepared:
                yield prepare_name(index)
            yield name
        yield from self.outputs

    def to_json(self) -> str:
        """Return the plan as one line of JSON with sorted keys, without empty optional fields."""
        document = {key: value for key, value in asdict(self).items() if value or key not in _OPTIONAL}
        return json.dumps(document, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PodPlan":
        """Parse a plan. Raise MalformedPlan."""
        try:
            raw = json.loads(text)
            plan = cls(
                inputs=tuple(map(str, raw["inputs"])),
                executors=tuple(map(str, raw["executors"])),
                ignore_error=tuple(map(bool, raw["ignore_error"])),
                outputs=tuple(map(str, raw["outputs"])),
                prepared=tuple(map(int, raw.get("prepared", ()))),
                streams=tuple(map(str, raw.get("streams", ()))),
                rescues=tuple(map(str, raw.get("rescues", ()))),
                upload_on_error=bool(raw["upload_on_error"]),
                preemptible=bool(raw["preemptible"]),
                files_only=bool(raw.get("files_only", False)),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedPlan(f"not a plan: {error!r}") from error
        if len(plan.ignore_error) != len(plan.executors):
            raise MalformedPlan("ignore_error and executors must have the same length")
        return plan
