"""The usage of ended tasks in Postgres: one row of task_usage per task, added up for each report."""
# ruff: noqa: S608 - built from text of this file only; values are parameters

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from poiesis_api.identity.caller import Caller
from poiesis_api.postgres import Pool, fetch
from poiesis_api.usage import ROWS, TEXT_CHARACTERS, GroupBy, UsageQuery

_ENDED = "ended_at AT TIME ZONE 'UTC'"
_GROUPS: Mapping[GroupBy, str] = {
    GroupBy.MONTH: f"to_char(date_trunc('month', {_ENDED}), 'YYYY-MM')",
    GroupBy.DAY: f"(({_ENDED})::date)::text",
    GroupBy.OWNER: "owner",
    GroupBy.GROUP: "shared_with",
    GroupBy.TAG: f"left(tags ->> $4, {TEXT_CHARACTERS})",
}
_SECONDS = ("cpu_seconds", "ram_gb_seconds", "disk_gb_seconds", "gpu_seconds", "used_cpu_seconds")
_MEASURES = f"""count(*) AS tasks,
       count(*) FILTER (WHERE state IN ('EXECUTOR_ERROR', 'SYSTEM_ERROR')) AS failures,
       {", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _SECONDS)}"""


async def read_usage(pool: Pool, caller: Caller, query: UsageQuery) -> list[Mapping[str, Any]]:
    """Return a row per group, at most one more than ROWS. Raise StorageUnavailable.

    Tasks of other users count for administrators only.
    """
    sql, values = usage_statement(caller, query)
    return [dict(row) for row in await fetch(pool, sql, *values)]


def usage_statement(caller: Caller, query: UsageQuery) -> tuple[str, list[object]]:
    """Return the SQL of a report and its values. There is one text per combination of groups."""
    values: list[object] = [_midnight(query.since), _midnight(query.until), caller.name]
    # A parameter that is not used would have no type.
    owner = "$3::text IS NOT NULL" if caller.administrator else "owner = $3"
    if GroupBy.TAG in query.group_by:
        values.append(query.tag_key)
    groups = "".join(f'{_GROUPS[one]} AS "{one.value}", ' for one in query.group_by)
    numbers = ", ".join(str(number) for number, _ in enumerate(query.group_by, start=1))
    order = f"GROUP BY {numbers} ORDER BY {numbers}" if numbers else ""
    sql = f"""
SELECT {groups}{_MEASURES}
  FROM task_usage WHERE ended_at >= $1 AND ended_at < $2 AND {owner}
 {order} LIMIT {ROWS + 1}
"""
    return sql, values


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
