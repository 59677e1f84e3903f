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
from poiesis_api.tasks_db import _READ_CHOSEN, _choice
from poiesis_bench.requests import fill
from poiesis_documents.documents import View
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
    "name_prefix with few matches": Filter(name_prefix="sample-1234"),
    "name_prefix without a match": Filter(name_prefix="nothing"),
}
# Pages read per task of a page: rows of each of two groups, tags, and the stored document.
PAGES_PER_TASK = 10


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


async def explained(database, sql, *values):
    """Return the names of tables that are scanned, and the number of pages read."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
    plan = json.loads(await database.fetchval(explain, *values))[0]["Plan"]
    executed = [one for one in nodes(plan) if one["Actual Loops"]]
    scanned = {one["Relation Name"] for one in executed if one["Node Type"] == "Seq Scan"}
    return scanned, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.mark.parametrize("before", [None, DEEP])
@pytest.mark.parametrize("wanted", FILTERS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_list_reads_its_page_only(database, caller, wanted, before):
    query = ListQuery(filter=FILTERS[wanted], before=before, view=View.BASIC)
    scanned, pages = await explained(database, *flat(_choice(CALLERS[caller], query)))
    assert "task" not in scanned  # small tables may be scanned: that reads fewer pages
    assert pages <= (query.page_size + 1) * PAGES_PER_TASK


@pytest.mark.parametrize("caller", CALLERS)
async def test_largest_page_reads_its_tasks_only(database, caller):
    query = ListQuery(page_size=PAGE_SIZE_MAX)
    scanned, pages = await explained(database, *flat(_choice(CALLERS[caller], query)))
    assert "task" not in scanned
    assert pages <= (PAGE_SIZE_MAX + 1) * PAGES_PER_TASK


@pytest.mark.parametrize("view", [View.BASIC, View.FULL])
async def test_stored_documents_are_all_that_is_read(database, view):
    chosen = [row["seq"] for row in await database.fetch("SELECT seq FROM task ORDER BY seq DESC LIMIT 256")]
    scanned, pages = await explained(database, _READ_CHOSEN[view], chosen)
    assert not scanned
    assert pages <= len(chosen) * PAGES_PER_TASK


def flat(statement):
    sql, values = statement
    return sql, *values
