"""The namespace that a new task runs in. Pure.

It is decided and stored when the task is created, because the caller's groups are known only then.
"""

from poiesis_api.config import TasksNamespaces
from poiesis_api.identity.caller import Caller


def namespace_for(caller: Caller, tasks: TasksNamespaces) -> str | None:
    """Return the first namespace of one of the caller's groups, else the default one.

    None: the api's own namespace.
    """
    groups = frozenset(caller.groups)
    of_groups = (entry.name for entry in tasks.namespaces if not groups.isdisjoint(entry.groups))
    return next(of_groups, tasks.namespace)
