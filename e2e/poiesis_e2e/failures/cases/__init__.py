"""The failure table: one case for each failure of a task, one module per section.

docs/reference/failures.md is generated from this list; stories/test_failures.py causes each on a cluster.
"""

from collections.abc import Sequence

from poiesis_e2e.failures.case import Case
from poiesis_e2e.failures.cases import (
    cancel,
    data,
    executors,
    gateway,
    images,
    kueue,
    nodes,
    outside,
    recorder,
    refusals,
)

_SECTIONS = (executors, images, data, recorder, gateway, refusals, cancel, outside, nodes, kueue)

SECTIONS = tuple(section.SECTION for section in _SECTIONS)
CASES: Sequence[Case] = tuple(case for section in _SECTIONS for case in section.CASES)
