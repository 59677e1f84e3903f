"""Where Kueue admits the Jobs (`config.queue.kueueQueueName`)."""

from collections.abc import Sequence

from poiesis_e2e.failures.case import After, Case
from poiesis_e2e.failures.cases.builders import ASKED, CANCELED, RAN, READY, SOON, START, WAIT, scripts
from poiesis_e2e.failures.disturbances import (
    canceled,
    deactivated,
    executor_runs,
    in_system_logs,
    preempted,
    queue_stopped,
    removed_after,
)
from poiesis_e2e.failures.sights import first_attempt, logged, no_object, no_workload, printed
from poiesis_e2e.failures.surroundings import full_queue

SECTION = "Kueue"

_FULL = full_queue()
_NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for cpu"
_waits = in_system_logs("insufficient unused quota")
# Fails on a volume that is not empty.
_ONCE = f"[ -e /data/here ] && exit 9; touch /data/here; {READY}; sleep 12"
_AGAIN = 60  # seconds: the queue becomes free, and the task starts again

CASES: Sequence[Case] = (
    Case(
        id="kueue-full",
        section=SECTION,
        title="The task waits in the queue",
        around=_FULL,
        document=scripts("echo at last"),
        meanwhile=removed_after(_FULL, "insufficient unused quota"),
        state="COMPLETE",
        exit_codes=(0,),
        reporter="recorder",
        within=START,
        after=After.ASKED,
        states=RAN,
        sees=(printed("at last\n"), logged(f"Kueue: Pending: {_NO_QUOTA}")),
        release="queued",
    ),
    *(
        Case(
            id=f"kueue-{name}",
            section=SECTION,
            title=title,
            document=scripts(_ONCE, volumes=["/data"]),
            meanwhile=disturbance,
            state="COMPLETE",
            exit_codes=(0,),
            attempts=2,
            reporter="recorder",
            within=_AGAIN,
            after=After.ASKED,
            states=(*RAN, *RAN),
            sees=(first_attempt(f"the Job was suspended by Kueue ({reason}: ", exit_code=143),),
            release="queued",
        )
        for name, title, disturbance, reason in (
            (
                "preempted",
                "The task is preempted, and starts again on a new volume",
                preempted(),
                "Preempted",
            ),
            (
                "stopped",
                "The queue is drained, and the task starts again on a new volume",
                queue_stopped(),
                "ClusterQueueStopped",
            ),
        )
    ),
    Case(
        id="kueue-deactivated-waiting",
        section=SECTION,
        title="The task is deactivated before it runs",
        around=_FULL,
        document=scripts("echo never"),
        meanwhile=deactivated("while it waits", _waits),
        state="SYSTEM_ERROR",
        reasons=("Deactivated",),
        message="Kueue: The workload is deactivated",
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=("QUEUED",),
        sees=(logged("insufficient unused quota"), no_object(), no_workload()),
        release="queued",
    ),
    Case(
        id="kueue-deactivated-running",
        section=SECTION,
        title="The task is deactivated while it runs",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=deactivated("while an executor runs", executor_runs),
        state="SYSTEM_ERROR",
        reasons=("Deactivated",),
        message="Kueue: The workload is deactivated",
        exit_codes=(143,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\n"), no_object(), no_workload()),
        release="queued",
    ),
    Case(
        id="kueue-canceled",
        section=SECTION,
        title="The task waits in the queue",
        around=_FULL,
        document=scripts("echo never"),
        meanwhile=canceled("while it waits", _waits),
        state="CANCELED",
        reasons=("Canceled",),
        message="canceled on request",
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=("QUEUED", *CANCELED),
        sees=(logged(ASKED), no_object(), no_workload()),
        release="queued",
    ),
)
