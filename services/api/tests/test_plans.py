"""The plan of every list: no scan of all tasks, and a bounded number of pages read.

Postgres chooses plans by statistics, so the tests fill the tables and look at what it really does.
"""

import asyncio
import json

import asyncpg
import pytest

from poiesis_api.config import Database
from poiesis_api.identity.caller import Caller
from poiesis_api.postgres import open_pool
from poiesis_api.queries import PAGE_SIZE_MAX, Filter, ListQuery
from poiesis_api.tasks_db import _list_statement
from poiesis_bench.requests import fill
from poiesis_documents.documents import DOCUMENT, View
from poiesis_models.states import TesState

pytestmark = pytest.mark.integration

TASKS = 20_000
DEEP = 2_000  # seq before which a deep page begins
CALLERS = {
    "owner": Caller(name="anonymous"),
    "member": Caller(name="anonymous", groups=("lab", "other")),
    "administrator": Caller(name="root", administrator=True),
}
FILTERS = {
    "all": Filter(),
    "state": Filter(state=TesState.COMPLETE),
    "rare state": Filter(state=TesState.QUEUED),
    "common tag": Filter(tags=(("study", "genomes"),)),
    "rare tag": Filter(tags=(("rare", "yes"),)),
    "tag without a match": Filter(tags=(("study", "none"),)),
    "two tags": Filter(tags=(("rare", "yes"), ("study", "genomes"))),
    "name_prefix": Filter(name_prefix="sample-1"),
}
# Pages read per task of a page: rows of each of two groups, and of tags and of the parts of a document.
PAGES_PER_TASK = {View.MINIMAL: 10, View.BASIC: 50, View.FULL: 90}
# Known limits: Postgres scans `task`, since no index finds few tasks by their name, or by their state alone.
SCANS = [
    *((caller, Filter(name_prefix="nothing")) for caller in CALLERS),
    ("administrator", FILTERS["rare state"]),
]


async def _fill(dsn):
    await fill(dsn, TASKS)
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE task SET shared_with = 'lab' WHERE seq % 7 = 0 AND owner <> 'anonymous'")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


@pytest.fixture(scope="module")
def filled(postgres_dsn):
    """The DSN of a database with many tasks."""
    asyncio.run(_fill(postgres_dsn))
    return postgres_dsn


@pytest.fixture
async def database(filled):
    async with open_pool(filled, Database()) as pool:
        yield pool


def nodes(plan):
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


async def explained(database, caller, query):
    """Return the names of tables that are scanned, and the number of pages read."""
    sql, values = _list_statement(caller, query, DOCUMENT[query.view])
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
    plan = json.loads(await database.fetchval(explain, *values))[0]["Plan"]
    scanned = {one["Relation Name"] for one in nodes(plan) if one["Node Type"] == "Seq Scan"}
    return scanned, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


PAGES = [
    (caller, wanted, before)
    for caller in CALLERS
    for wanted in FILTERS
    for before in (None, DEEP)
    if before or (caller, FILTERS[wanted]) not in SCANS
]


@pytest.mark.parametrize(("caller", "wanted", "before"), PAGES)
async def test_list_reads_its_page_only(database, caller, wanted, before):
    for view in (View.MINIMAL, View.BASIC):
        query = ListQuery(filter=FILTERS[wanted], before=before, view=view)
        scanned, pages = await explained(database, CALLERS[caller], query)
        assert "task" not in scanned  # small tables may be scanned: that reads fewer pages
        assert pages <= (query.page_size + 1) * PAGES_PER_TASK[view]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("view", View)
async def test_largest_page_reads_its_tasks_only(database, caller, view):
    query = ListQuery(page_size=PAGE_SIZE_MAX, view=view)
    scanned, pages = await explained(database, CALLERS[caller], query)
    assert "task" not in scanned
    assert pages <= (PAGE_SIZE_MAX + 1) * PAGES_PER_TASK[view]


@pytest.mark.parametrize(("caller", "wanted"), SCANS)
async def test_known_limits_read_task_once(database, caller, wanted):
    size = await database.fetchval("SELECT pg_relation_size('task') / 8192")
    scanned, pages = await explained(database, CALLERS[caller], ListQuery(filter=wanted, view=View.BASIC))
    assert "task" in scanned  # remove the case when this fails
    assert pages <= 2 * size
