"""What others do to it."""

from collections.abc import Sequence

from failures.case import After, Case
from failures.cases.builders import RAN, READY, SOON, WAIT, scripts
from failures.disturbances import deadline, deleted
from failures.sights import printed

SECTION = "What others do to it"

CASES: Sequence[Case] = (
    Case(
        id="pod-deleted",
        section=SECTION,
        title="Somebody deletes the Pod",
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
        title="Somebody deletes the Job",
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
        title="It takes longer than the site allows",
        document=scripts(f"{READY}; {WAIT}", "echo never"),
        meanwhile=deadline(2),
        state="SYSTEM_ERROR",
        reasons=("DeadlineExceeded",),
        message="Pod was active on the node longer than the specified deadline",
        exit_codes=(143,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\n"),),
    ),
)
