"""As an operator I lose parts of the system at any moment, and every task keeps its correct outcome.

This is a short run without restarts of the kubelet, which other stories need; `make chaos` includes them.
"""

from pathlib import Path

import pytest

from poiesis_e2e.chaos.judge import violations
from poiesis_e2e.chaos.plan import Kind, kinds, plan
from poiesis_e2e.chaos.report import summary
from poiesis_e2e.chaos.run import carry_out
from poiesis_e2e.chaos.stage import stage
from poiesis_e2e.storage import Endpoint
from poiesis_e2e.transport import transport
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_SEED = 7
_KINDS = kinds(transport()) - {Kind.KUBELET}


async def test_every_task_has_its_expected_outcome_despite_kills(
    *, cluster: Cluster, built: dict[str, str], storage: Endpoint, images: Images, tmp_path: Path
) -> None:
    with stage(cluster, built, storage, images, ttl=20) as there:
        record = await carry_out(plan(_SEED, seconds=60, tasks=12, kinds=_KINDS), there, tmp_path)

    found = violations(record)
    assert found == [], f"{summary(record, found)}evidence is in {tmp_path}"
    assert {one.fault.kind for one in record.injected if one.victims} == _KINDS
