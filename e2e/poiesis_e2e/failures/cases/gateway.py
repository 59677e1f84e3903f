"""Tasks that lose the gateway, or attack it."""

from collections.abc import Sequence

from poiesis_e2e import gateway_control
from poiesis_e2e.attacks import attack
from poiesis_e2e.failures.case import After, Case, World
from poiesis_e2e.failures.cases.builders import (
    RAN,
    READY,
    SOON,
    START,
    UNTIL_SIGNALED,
    Builder,
    scripts,
)
from poiesis_e2e.failures.gateway_disturbances import (
    certificate_renewed,
    gateway_away,
    gateway_killed,
    gateway_killed_at_the_end,
    no_database,
    no_replicas,
    other_authority,
)
from poiesis_e2e.failures.sights import (
    ended_meanwhile,
    no_line_twice,
    pod_ended,
    printed,
    recorded_afterwards,
    renewed_certificate_presented,
)
from poiesis_e2e.tes_client import Document

SECTION = "The gateway"

_REPLACED = 30  # seconds: the Deployment starts another Pod, and the recorder retries at most every 10 s
_LATE = (printed("ready\ndone\n"), ended_meanwhile(), recorded_afterwards(), no_line_twice())


def _attacking(program: str, *arguments: str) -> Builder:
    """Build a task whose executor attacks the gateway and exits with 3."""

    async def build(world: World) -> Document:
        where = (await gateway_control.host(world.services), str(gateway_control.PORT))
        return {"executors": [attack(world.images.python_base, program, *where, *arguments)]}

    return build


CASES: Sequence[Case] = (
    Case(
        id="gateway-killed",
        section=SECTION,
        title="The gateway is killed and replaced",
        document=scripts(
            f"{READY}; for i in 1 2 3 4 5 6; do sleep 1; echo $i; done", "echo two; sleep 3; echo three"
        ),
        meanwhile=gateway_killed(),
        state="COMPLETE",
        exit_codes=(0, 0),
        reporter="recorder",
        within=_REPLACED,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("ready\n1\n2\n3\n4\n5\n6\n"), printed("two\nthree\n", index=1), no_line_twice()),
        release="second",
        alone=True,
        transport="gateway",
    ),
    *(
        Case(
            id=f"gateway-killed-{name}",
            section=SECTION,
            title="The gateway is killed and replaced",
            document=scripts(UNTIL_SIGNALED),
            meanwhile=gateway_killed_at_the_end(words, executed=executed),
            state="COMPLETE",
            exit_codes=(0,),
            reporter="recorder",
            within=_REPLACED,
            after=After.ASKED,
            states=RAN,
            sees=(printed("ready\ndone\n"), no_line_twice(), pod_ended("Succeeded")),
            release="second",
            alone=True,
            transport="gateway",
        )
        for name, words, executed in (
            ("before-the-end", "before Postgres has stored the outcome", False),
            ("before-the-response", "when Postgres has stored the outcome, before the response", True),
        )
    ),
    *(
        Case(
            id=f"gateway-{name}",
            section=SECTION,
            title=title,
            document=scripts(UNTIL_SIGNALED),
            meanwhile=gateway_away(words, away),
            state="COMPLETE",
            exit_codes=(0,),
            reporter="recorder",
            within=START,
            after=After.ASKED,
            states=RAN,
            sees=_LATE,
            release="second",
            alone=True,
            transport="gateway",
        )
        for name, title, words, away in (
            (
                "unreachable",
                "The gateway cannot be reached",
                "it has no replicas while the executor ends, and then returns",
                no_replicas,
            ),
            (
                "unavailable",
                "The gateway has no connection to Postgres and returns 503",
                "Postgres refuses the role of the gateway while the executor ends",
                no_database,
            ),
            (
                "impostor",
                "A server with a certificate of another authority answers in place of the gateway",
                "the certificate is replaced while the executor ends, and then restored",
                other_authority,
            ),
        )
    ),
    Case(
        id="gateway-certificate-renewed",
        section=SECTION,
        title="The gateway reads its renewed certificate without a restart",
        document=scripts(UNTIL_SIGNALED),
        meanwhile=certificate_renewed(),
        state="COMPLETE",
        exit_codes=(0,),
        reporter="recorder",
        within=SOON,
        after=After.ASKED,
        states=RAN,
        sees=(printed("ready\ndone\n"), renewed_certificate_presented(), no_line_twice()),
        release="second",
        alone=True,
        transport="gateway",
    ),
    Case(
        id="gateway-flooded",
        section=SECTION,
        title="The executor floods the gateway with silent connections and invalid tokens for 15 s, "
        "and exits with 3",
        document=_attacking("flood_gateway", "100", "15"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=SOON,
        after=After.EXECUTOR,
        states=RAN,
        release="second",
        alone=True,
        transport="gateway",
    ),
    Case(
        id="forged-by-report",
        section=SECTION,
        title="The executor reports to the gateway that its task is COMPLETE, without a valid token, "
        "and exits with 3",
        document=_attacking("forge_report"),
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 3",
        container="executor-0",
        exit_codes=(3,),
        reporter="recorder",
        within=SOON,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("401\n401\n401\n"),),
        release="second",
        transport="gateway",
    ),
)
