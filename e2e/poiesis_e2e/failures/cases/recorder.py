"""Tasks that lose their recorder."""

from collections.abc import Sequence

from poiesis_e2e.failures.case import After, Case
from poiesis_e2e.failures.cases.builders import (
    AT_ONCE,
    PULL,
    QUEUED,
    RAN,
    READY,
    SOON,
    UNTIL_SIGNALED,
    WAIT,
    scripts,
    sent,
)
from poiesis_e2e.failures.disturbances import (
    ended,
    live,
    recorder_killed,
    recorder_killed_again_and_again,
    recorder_killed_at_the_end,
    recorder_killed_twice,
    recorder_lost,
    recorder_without_access,
    runs,
    token_refused,
)
from poiesis_e2e.failures.sights import (
    explained,
    in_the_bucket,
    no_line_twice,
    pod_ended,
    printed,
    restarted,
    stored,
)
from poiesis_e2e.failures.surroundings import container_with
from poiesis_e2e.tes_client import State

SECTION = "The recorder"

_FIRST_BACK_OFF = 10  # seconds, of the kubelet
_FAILED_ACK = 120  # seconds that a failed container waits for a recorder that is down

_ONE = f"{READY}; sleep 6; echo one"
_TWO = "echo two; sleep 3; echo three"
_BOTH = (printed("ready\none\n"), printed("two\nthree\n", index=1), restarted("trec"), no_line_twice())

_LOST: Sequence[tuple[str, State, int]] = (("", "COMPLETE", 0), ("-failed", "EXECUTOR_ERROR", 3))

CASES: Sequence[Case] = (
    *(
        Case(
            id=f"recorder-{name}",
            section=SECTION,
            title="The recorder is killed and restarts",
            document=scripts(_ONE, _TWO),
            meanwhile=recorder_killed(words, when),
            state="COMPLETE",
            exit_codes=(0, 0),
            reporter="recorder",
            within=after,
            after=After.EXECUTOR,
            states=RAN,
            sees=_BOTH,
        )
        for name, words, when, after in (
            ("killed-at-first", "as soon as it runs", runs("trec"), AT_ONCE),
            ("killed", "when it has reported the executor's output so far", live("ready\n"), AT_ONCE),
            ("killed-between", "between two executors", ended("executor-0"), AT_ONCE),
        )
    ),
    Case(
        id="recorder-killed-before-outputs",
        section=SECTION,
        title="The recorder is killed and restarts",
        document=sent(f"{READY}; echo it >/out/it"),
        meanwhile=recorder_killed("when the last executor has ended", ended("executor-0")),
        state="COMPLETE",
        exit_codes=(0,),
        reporter="recorder",
        within=SOON,
        after=After.EXECUTOR,
        states=RAN,
        sees=(stored("it", "it\n"), no_line_twice()),
    ),
    *(
        Case(
            id=f"recorder-killed-{name}",
            section=SECTION,
            title="The recorder is killed and restarts",
            document=scripts(UNTIL_SIGNALED),
            meanwhile=recorder_killed_at_the_end(words, executed=heard),
            state="COMPLETE",
            exit_codes=(0,),
            reporter="recorder",
            within=SOON,
            after=After.ASKED,
            states=RAN,
            sees=(printed("ready\ndone\n"), restarted("trec"), no_line_twice(), pod_ended("Succeeded")),
            release="second",
        )
        for name, words, heard in (
            ("before-the-end", "before Postgres has stored the outcome", False),
            ("before-the-ack", "when Postgres has stored the outcome, before the acknowledgement", True),
        )
    ),
    Case(
        id="recorder-missing",
        section=SECTION,
        title="The recorder's image cannot be pulled",
        around=container_with("another image name", "trec", "/image", "registry.invalid/no/such:image"),
        document=scripts("echo never"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="trec (<image>) cannot start: <message of the kubelet and the registry>no such host",
        container="trec",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
        sees=(explained("trec: Failed: Failed to pull image "),),
    ),
    Case(
        id="recorder-never-starts",
        section=SECTION,
        title="The recorder cannot start, and Kubernetes restarts it repeatedly "
        "(`tctl.thresholds.startSeconds`, here 30)",
        around=container_with(
            "the recorder's image lacks its program", "trec", "/command", ["/no/such/program"]
        ),
        document=scripts("echo never"),
        state="SYSTEM_ERROR",
        reasons=("StartError",),
        message="the recorder was restarted <number> times and could not start: <message of the kubelet>"
        "no such file or directory: unknown",
        container="trec",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
        release="second",
    ),
    Case(
        id="recorder-down-at-a-failure",
        section=SECTION,
        title="The recorder is down when an executor exits with 3, and the container waits for it",
        document=scripts(f"{READY}; sleep 8; echo heard; exit 3"),
        meanwhile=recorder_killed_twice(),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=SOON + _FIRST_BACK_OFF,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("ready\nheard\n"), restarted("trec"), no_line_twice()),
    ),
    Case(
        id="recorder-killed-for-good",
        section=SECTION,
        title="The recorder is killed after every start, and an executor exits with 3",
        document=scripts(f"{READY}; sleep 8; echo unheard; exit 3"),
        meanwhile=recorder_killed_again_and_again(),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="controller",
        within=SOON + _FAILED_ACK,
        after=After.EXECUTOR,
        states=RAN,
        sees=(no_line_twice(),),
    ),
    *(
        Case(
            id=f"recorder-lost{suffix}",
            section=SECTION,
            title="The recorder does not return, and all other containers have ended. "
            "`pause` would wait ten minutes for it (`tctl.thresholds.stalledSeconds`)",
            document=sent(f"{READY}; sleep 12; echo it >/out/it; exit {code}"),
            meanwhile=recorder_lost(),
            state=state,
            reasons=("Error",) if code else (),
            message=f"executor 0 exited with code {code}" if code else None,
            container="executor-0" if code else None,
            exit_codes=(code,),
            reporter="controller",
            within=PULL,
            after=After.EXECUTOR,
            states=RAN,
            sees=(in_the_bucket("it", "it\n"), no_line_twice()),
        )
        for suffix, state, code in _LOST
    ),
    Case(
        id="recorder-without-role",
        section=SECTION,
        title="The recorder may not read its Pod any more",
        document=scripts(_ONE, _TWO),
        meanwhile=recorder_without_access("roles,rolebindings", "the Role and its binding are deleted"),
        state="COMPLETE",
        exit_codes=(0, 0),
        reporter="recorder",
        within=AT_ONCE,
        after=After.EXECUTOR,
        states=RAN,
        needs_access=True,
        sees=_BOTH,
    ),
    Case(
        id="recorder-without-token",
        section=SECTION,
        title="The recorder's token for the API server is not valid any more",
        document=scripts(f"{READY}; sleep 25; echo one", _TWO),
        meanwhile=recorder_without_access(
            "serviceaccounts", "the task's ServiceAccount is deleted", until=token_refused
        ),
        state="COMPLETE",
        exit_codes=(0, 0),
        reporter="recorder",
        within=AT_ONCE,
        after=After.EXECUTOR,
        states=RAN,
        needs_access=True,
        sees=_BOTH,
    ),
    Case(
        id="recorder-killed-with-it",
        section=SECTION,
        title="The recorder is killed while an executor is stopping",
        document=scripts(f"trap 'sleep 2; exit 5' TERM; {READY}; {WAIT}"),
        meanwhile=recorder_without_access("jobs", "the Job is deleted"),
        state="SYSTEM_ERROR",
        reasons=("JobDeleted",),
        message="the Job was deleted",
        exit_codes=(5,),
        reporter="controller",
        within=SOON,
        after=After.ASKED,
        states=RAN,
    ),
)
