"""The securityContext of executors, by profile (the levels of Pod Security). Pure.

baseline: images run as the user that they specify. restricted: TaskPods pass the Pod Security level
"restricted". In both, the operator's own securityContext adds to the profile.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Profile = Literal["baseline", "restricted"]

# An executor shares the Pod's network with the recorder, and the node's bridge with other Pods: with a raw
# socket it could read and forge their packets. So no configuration adds this capability.
NEVER = "NET_RAW"
# Runtimes add these by default, and programs of tasks do not need them. An operator may add them.
_DROPPED = (NEVER, "MKNOD", "AUDIT_WRITE")

_RESTRICTED: Mapping[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
# https://kubernetes.io/docs/concepts/security/pod-security-standards, baseline and restricted.
_SECCOMP = ("RuntimeDefault", "Localhost")
_SELINUX = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_ADDABLE = ("NET_BIND_SERVICE",)
_RESTRICTED_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
    | {"secret"}
)


def executor_security_context(profile: Profile, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the securityContext of every container that runs a client's image."""
    given = {name: value for name, value in configured.items() if value is not None}
    base = _RESTRICTED if profile == "restricted" else {}
    return {
        "allowPrivilegeEscalation": False,
        **base,
        **given,
        "capabilities": _capabilities(profile, given.get("capabilities") or {}),
    }


def contradiction(profile: Profile, configured: Mapping[str, Any]) -> str | None:
    """Return which part of a configured securityContext the profile excludes, as a sentence, or None."""
    capabilities = configured.get("capabilities") or {}
    added = _names(capabilities.get("add") or ())
    if NEVER in added:
        return f"capabilities.add must not contain {NEVER}, which is dropped from all executors"
    if configured.get("privileged"):
        return f"privileged must be false: it includes {NEVER}, which is dropped from all executors"
    if profile == "baseline":
        return None
    excluded = sorted(added.difference(_ADDABLE))
    if excluded:
        return (
            f"capabilities.add must contain at most {', '.join(_ADDABLE)} with executors.profile restricted,"
            f" got {', '.join(excluded)}"
        )
    problems = (
        f"{field} must be {accepted} with executors.profile restricted, got {got!r}"
        for field, got, fits, accepted in _restrictions(configured)
        if not fits
    )
    return next(problems, None)


def excluded_volume(source: Mapping[str, Any]) -> str | None:
    """Return the kind of a volume that the Pod Security level "restricted" excludes, or None."""
    return next((kind for kind in sorted(source) if kind not in _RESTRICTED_VOLUMES), None)


def _capabilities(profile: Profile, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is added and dropped. Runtimes drop after they add, so `add: [ALL]` is covered."""
    added, dropped = configured.get("add") or [], configured.get("drop") or []
    by_default = ["ALL"] if profile == "restricted" else _DROPPED
    if "ALL" in _names(dropped):
        more = []
    else:
        more = [name for name in by_default if name not in _names(dropped) | _names(added)]
    return {**configured, "drop": [*dropped, *more]}


def _restrictions(configured: Mapping[str, Any]) -> Iterable[tuple[str, Any, bool, str]]:
    """Yield the fields that the level "restricted" bounds: name, value, whether it fits, what would."""
    for field, accepted in (("runAsNonRoot", True), ("allowPrivilegeEscalation", False)):
        got = configured.get(field)
        yield field, got, got in (None, accepted), str(accepted).lower()
    user = configured.get("runAsUser")
    yield "runAsUser", user, user != 0, "a user other than 0"
    seccomp = _inner(configured, "seccompProfile", "type")
    yield "seccompProfile.type", seccomp, seccomp in (None, *_SECCOMP), " or ".join(_SECCOMP)
    armor = _inner(configured, "appArmorProfile", "type")
    yield "appArmorProfile.type", armor, armor in (None, *_SECCOMP), " or ".join(_SECCOMP)
    selinux = _inner(configured, "seLinuxOptions", "type")
    yield "seLinuxOptions.type", selinux, selinux in (None, "", *_SELINUX), " or ".join(_SELINUX)
    for name in ("user", "role"):
        got = _inner(configured, "seLinuxOptions", name)
        yield f"seLinuxOptions.{name}", got, got in (None, ""), "unset"
    mount = configured.get("procMount")
    yield "procMount", mount, mount in (None, "Default"), "Default"


def _inner(configured: Mapping[str, Any], field: str, name: str) -> Any:
    return (configured.get(field) or {}).get(name)


def _names(capabilities: Iterable[object]) -> set[str]:
    """Return names of capabilities as Kubernetes documents them: `cap_net_raw` is NET_RAW."""
    return {str(name).upper().removeprefix("CAP_") for name in capabilities}
