"""Objects that Kubernetes rejects."""

from collections.abc import Sequence

from poiesis_e2e.failures.case import After, Case, Reporter
from poiesis_e2e.failures.cases.builders import AT_ONCE, RAN, RETRIES, START, scripts
from poiesis_e2e.failures.disturbances import removed_after
from poiesis_e2e.failures.sights import logged, no_object, printed
from poiesis_e2e.failures.surroundings import (
    MARKED_JOB,
    MARKED_POD,
    REFUSED_BYTES,
    limit_range,
    pod_security,
    policy,
    quota,
    webhook_down,
    webhook_of_old,
)

SECTION = "Rejections by Kubernetes"

_QUOTA_OF_JOBS = quota(count__jobs_batch="0")
_QUOTA_OF_PODS = quota(pods="0")
_WEBHOOK = webhook_down()
_STRIPPED: Sequence[tuple[str, str, str, Reporter, int]] = (
    ("Job", "Invalid", 'Kubernetes rejected the task: Job.batch "<name>" is invalid', "api", AT_ONCE),
    ("Pod", "FailedCreate", 'Error creating: Pod "<name>" is invalid', "controller", START),
)

CASES: Sequence[Case] = (
    Case(
        id="job-refused",
        section=SECTION,
        title="The Job is rejected permanently",
        around=policy("batch/jobs", f"!{MARKED_JOB}"),
        document=scripts("echo never"),
        state="SYSTEM_ERROR",
        reasons=("Invalid",),
        message="Kubernetes rejected the task: <the job> is forbidden: "
        "<the policy> denied request: not on this site",
        reporter="api",
        within=AT_ONCE,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
    ),
    Case(
        id="claim-refused",
        section=SECTION,
        title="The PersistentVolumeClaim is rejected permanently",
        around=policy(
            "/persistentvolumeclaims",
            f"string(object.spec.resources.requests['storage']) != '{REFUSED_BYTES}'",
        ),
        document=scripts("echo never", resources={"disk_gb": REFUSED_BYTES / 1e9}),
        state="SYSTEM_ERROR",
        reasons=("Invalid",),
        message="Kubernetes rejected the task: <the claim> is forbidden: "
        "<the policy> denied request: not on this site",
        reporter="api",
        within=AT_ONCE,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
    ),
    *(
        Case(
            id=f"webhook-of-old-{kind.lower()}",
            section=SECTION,
            title="The recorder would not be a sidecar",
            around=webhook_of_old(kind),
            document=scripts("echo never"),
            state="SYSTEM_ERROR",
            reasons=(reason,),
            message=f"{start}: <field>: Forbidden: may not be set for init containers without "
            "restartPolicy=Always (the cause: an admission webhook of this cluster does not support native "
            "sidecars and has removed restartPolicy)",
            reporter=reporter,
            within=within,
            after=After.CREATED,
            states=("QUEUED",),
            sees=(no_object(),),
        )
        for kind, reason, start, reporter, within in _STRIPPED
    ),
    Case(
        id="pod-refused",
        section=SECTION,
        title="The Pod is rejected permanently",
        around=policy("/pods", f"!{MARKED_POD}"),
        document=scripts("echo never"),
        state="SYSTEM_ERROR",
        reasons=("FailedCreate",),
        message="Error creating: <the pod> is forbidden: <the policy> denied request: not on this site",
        reporter="controller",
        within=START,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
    ),
    Case(
        id="pod-security",
        section=SECTION,
        title="The executors may run as root, and the namespace forbids it",
        around=pod_security("restricted"),
        document=scripts("echo never"),
        state="SYSTEM_ERROR",
        reasons=("FailedCreate",),
        message="Error creating: <the pod> is forbidden: "
        'violates PodSecurity "restricted:latest": <violations>',
        reporter="controller",
        within=START,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
        release="second",
        alone=True,
    ),
    Case(
        id="limit-range",
        section=SECTION,
        title="The task requests more than one container may have",
        around=limit_range("900Mi"),
        document=scripts("echo never", resources={"ram_gb": 1}),
        state="SYSTEM_ERROR",
        reasons=("FailedCreate",),
        message="Error creating: <the pod> is forbidden: "
        "maximum memory usage per Container is 900Mi, but limit is 1G",
        reporter="controller",
        within=START,
        after=After.CREATED,
        states=("QUEUED",),
        sees=(no_object(),),
        release="second",
        alone=True,
    ),
    *(
        Case(
            id=name,
            section=SECTION,
            title=title,
            around=around,
            document=scripts("echo at last"),
            meanwhile=removed_after(around, word),
            state="COMPLETE",
            exit_codes=(0,),
            reporter="recorder",
            within=within,
            after=After.ASKED,
            states=RAN,
            sees=(printed("at last\n"), logged(word)),
            release="second",
            alone=True,
        )
        for name, title, around, word, within in (
            ("job-quota", "The Job exceeds a quota", _QUOTA_OF_JOBS, "exceeded quota", RETRIES),
            ("pod-quota", "The Pod exceeds a quota", _QUOTA_OF_PODS, "exceeded quota", RETRIES),
            ("job-webhook", "The Job cannot be checked", _WEBHOOK, "failed calling webhook", RETRIES),
        )
    ),
)
