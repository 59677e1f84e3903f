"""Actions of other users."""

from collections.abc import Sequence

from poiesis_e2e.failures.case import After, Case
from poiesis_e2e.failures.cases.builders import RAN, READY, SOON, START, WAIT, scripts, sent
from poiesis_e2e.failures.disturbances import deadline, deleted, evicted
from poiesis_e2e.failures.sights import printed, stored
from poiesis_e2e.tes_client import State

SECTION = "Actions of other users"

_DRAINED: Sequence[tuple[str, str, bool, State]] = (
    ("", "The node is drained", False, "SYSTEM_ERROR"),
    ("-preemptible", "The node is drained, and the task has `preemptible`", True, "PREEMPTED"),
)

CASES: Sequence[Case] = (
    Case(
        id="pod-deleted",
        section=SECTION,
        title="A user deletes the Pod",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=deleted("pod"),
        state="SYSTEM_ERROR",
        reasons=("PodDeleted",),
        message="Pod <pod> was deleted",
        exit_codes=(143,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\n"),),
    ),
    Case(
        id="job-deleted",
        section=SECTION,
        title="A user deletes the Job",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=deleted("job"),
        state="SYSTEM_ERROR",
        reasons=("JobDeleted",),
        message="the Job was deleted",
        exit_codes=(143,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\n"),),
    ),
    Case(
        id="deadline",
        section=SECTION,
        title="The task takes longer than the limit",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=deadline(2),
        state="SYSTEM_ERROR",
        reasons=("DeadlineExceeded",),
        message="Pod was active on the node longer than the specified deadline "
        "(<n> s: wall_time_seconds of the task, or config.pod.activeDeadlineSeconds)",
        exit_codes=(143,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\n"),),
    ),
    *(
        Case(
            id=f"drained{suffix}",
            section=SECTION,
            title=title,
            document=scripts(f"{READY}; {WAIT}", "echo never", resources={"preemptible": preemptible}),
            meanwhile=evicted(),
            state=state,
            reasons=("EvictionByEvictionAPI",),
            message="Eviction API: evicting",
            exit_codes=(143,),
            reporter="controller",
            within=SOON,
            after=After.ASKED,
            states=RAN,
            sees=(printed("ready\n"),),
        )
        for suffix, title, preemptible, state in _DRAINED
    ),
    Case(
        id="claim-deleted",
        section=SECTION,
        title="A user deletes the PersistentVolumeClaim. Kubernetes keeps it while the Pod exists",
        document=sent(f"{READY}; sleep 3; echo kept >/out/it"),
        meanwhile=deleted("pvc"),
        state="COMPLETE",
        exit_codes=(0,),
        reporter="recorder",
        within=START,
        after=After.EXECUTOR,
        states=RAN,
        sees=(stored("it", "kept\n"),),
    ),
)
