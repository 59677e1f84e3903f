"""The chart as helm renders it. Needs helm: POIESIS_HELM, or on the PATH."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

CHART = Path(__file__).parents[1] / "poiesis"
FLOOR = "1.29.0"
EXTERNAL = ("postgresql.embedded=false", "postgresql.existingSecret=my-postgres")
DIRECT = ("config.recorder.transport=postgres",)
INLINE_KEYS = ("storageSecret.accessKey=inline-access-key", "storageSecret.secretKey=inline-secret-key")
BASIC = ("config.auth.mode=basic", "config.auth.basic.usersSecret.name=my-users")
OIDC = (
    *(
        "config.auth.mode=oidc",
        "config.auth.oidc.issuer=https://sso.example.org/realms/science",
        "config.auth.oidc.audiences={tes}",
    ),
    *(
        "config.auth.oidc.scopes={tes}",
        "config.auth.oidc.caSecret.name=my-ca",
        "config.auth.administrators.groups={admins}",
    ),
    *(
        "config.auth.oidc.introspection.clientId=tes-server",
        "config.auth.oidc.introspection.clientSecret.name=my-client",
    ),
    *(
        "config.auth.sharing.tag=group",
        "config.auth.oidc.leewaySeconds=5",
        "config.auth.oidc.staleSeconds=0.5",
    ),
)
CREDENTIALS = (
    *(
        "config.storage.s3.credentials[0].name=lab-a",
        "config.storage.s3.credentials[0].urls={s3://lab-a,s3://shared/a/}",
        "config.storage.s3.credentials[0].secretName=lab-a-keys",
    ),
    *("config.storage.s3.credentials[0].users={alice}", "config.storage.s3.credentials[0].groups={lab-a}"),
    *(
        "config.storage.s3.credentials[1].name=public",
        "config.storage.s3.credentials[1].urls={s3://public}",
        "config.storage.s3.credentials[1].anonymous=true",
    ),
    *(
        "config.storage.s3.credentials[1].endpoint=https://s3.example.org",
        "config.storage.s3.credentials[1].region=eu-1",
        "config.storage.s3.credentials[1].addressingStyle=virtual",
    ),
    *(
        "config.storage.s3.credentials[1].requesterPays=false",
        "config.storage.s3.credentials[1].caSecret.name=public-ca",
    ),
)
RCLONE = ("config.storage.rclone.schemes={sftp}", "config.storage.rclone.secretName=remotes")
SHARED = (
    "config.storage.sharedVolumes[0].prefix=/nfs",
    "config.storage.sharedVolumes[0].volume.persistentVolumeClaim.claimName=projects",
)
ENTRY = "config.storage.s3.credentials[0]"
ROLE = "arn:aws:iam::123456789012:role/tes"
WEB_IDENTITY = (
    f"config.storage.s3.webIdentity.roleArn={ROLE}",
    "config.storage.s3.webIdentity.stsEndpoint=https://sts.example.org",
)
USER_LIMITS = (
    *(
        "config.userLimits.active.tasks=5",
        "config.userLimits.active.whenReached=refuse",
        "config.userLimits.queuedTasks=6",
    ),
    *(
        "config.userLimits.requests.perSecond=0.5",
        "config.userLimits.cpuCores=7.5",
        "config.userLimits.ramGb=8",
        "config.userLimits.diskGb=9",
        "config.userLimits.gpus=2",
    ),
)
EVERYTHING = (
    "config.auth.allowAnonymous=true",
    "api.ingress.enabled=true",
    "api.ingress.host=tes.example.org",
    *INLINE_KEYS,
)

SERVICE_NAMES = [f"poiesis-api{domain}" for domain in ("", ".tes", ".tes.svc", ".tes.svc.cluster.local")]

API = pytest.mark.skipif(importlib.util.find_spec("poiesis_api") is None, reason="the api is not on the path")
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("POIESIS_HELM") or shutil.which("helm")
    if not program:
        pytest.fail("no helm: put it on the PATH or name it in POIESIS_HELM")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def template(
    *values: str, kube_version: str = FLOOR, release: str = "poiesis"
) -> subprocess.CompletedProcess[str]:
    given = [part for value in values for part in ("--set", value)]
    return helm("template", release, str(CHART), "--namespace", "tes", "--kube-version", kube_version, *given)


def render(*values: str, release: str = "poiesis") -> list[Manifest]:
    done = template(*values, release=release)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*values: str) -> str:
    done = template(*values)
    assert done.returncode != 0
    return done.stderr


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    found = [item for item in manifests if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, [(item["kind"], item["metadata"]["name"]) for item in manifests]
    return found[0]


def names(manifests: list[Manifest], kind: str) -> list[str]:
    return sorted(item["metadata"]["name"] for item in manifests if item["kind"] == kind)


def config(manifests: list[Manifest]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(one(manifests, "ConfigMap", "poiesis-api")["data"]["config.json"])
    return document


def environment(pod: Manifest) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in pod["containers"][0]["env"]}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for item in manifests:
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield name, item["spec"]
        elif item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, item["spec"]["template"]["spec"]
        elif item["kind"] == "CronJob":
            yield name, item["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def job_of(manifests: list[Manifest], component: str) -> Manifest:
    """Return the only Job of a component; its name contains a hash."""
    (name,) = [one for one in names(manifests, "Job") if one.startswith(f"poiesis-{component}-")]
    return one(manifests, "Job", name)


def postgres_container(manifests: list[Manifest]) -> Manifest:
    pod = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]["template"]["spec"]
    container: Manifest = pod["containers"][0]
    return container


def setup_document(manifests: list[Manifest]) -> dict[str, Any]:
    pod = job_of(manifests, "setup")["spec"]["template"]["spec"]
    document: dict[str, Any] = json.loads(environment(pod)["POIESIS_SETUP"])
    return document


def rules(manifests: list[Manifest], name: str) -> dict[tuple[str, str], list[str]]:
    """(group, resource[:resourceName]) -> verbs, each once."""
    granted: dict[tuple[str, str], list[str]] = {}
    for rule in one(manifests, "Role", name)["rules"]:
        suffixes = [f":{only}" for only in rule.get("resourceNames", [])] or [""]
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for suffix in suffixes:
                    granted[group, resource + suffix] = rule["verbs"]
    return granted


def test_helm_lint_finds_nothing():
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_without_native_sidecars_is_refused():
    done = template(kube_version="1.28.0")
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.29.0-0" in done.stderr
    assert template(kube_version="1.29.0").returncode == 0


def test_vendors_versions_of_kubernetes_are_accepted():
    assert template(kube_version="v1.31.4-gke.1256000").returncode == 0


@pytest.mark.parametrize("values", [(), EVERYTHING, EXTERNAL], ids=["default", "everything", "external"])
def test_nothing_is_cluster_wide(values):
    kinds = {item["kind"] for item in render(*values)}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}
    assert kinds <= {
        *(
            "ConfigMap",
            "CronJob",
            "Deployment",
            "Ingress",
            "Job",
            "Namespace",
            "NetworkPolicy",
            "Pod",
            "PodDisruptionBudget",
            "Role",
        ),
        *("RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"),
    }


def test_the_controller_follows_kueue_only_where_there_is_a_queue():
    kueue = ("kueue.x-k8s.io", "workloads")
    for values in (
        ("config.queue.kueueQueueName=lq", "config.volume.type=ephemeral"),
        ("config.backendParameters.queue={lab}",),
    ):
        manifests = render(*values)
        assert rules(manifests, "poiesis-tctl")[kueue] == ["list", "watch"]
        assert environment(dict(pods(manifests))["Deployment/poiesis-tctl"])["POIESIS_KUEUE"] == "true"
    assert kueue not in rules(render(), "poiesis-tctl")
    assert environment(dict(pods(render()))["Deployment/poiesis-tctl"])["POIESIS_KUEUE"] == "false"


def test_the_api_has_the_rights_it_uses():
    assert rules(render(), "poiesis-api") == {
        ("batch", "jobs"): ["create", "get", "patch", "delete"],
        ("", "secrets"): ["create"],
        ("", "serviceaccounts"): ["create", "get"],
        ("", "persistentvolumeclaims"): ["create", "get"],
    }


def test_recorders_of_files_only_need_no_rights():
    manifests = render("config.recorder.filesOnly=true")
    tctl, api = rules(manifests, "poiesis-tctl"), rules(manifests, "poiesis-api")
    assert {resource for group, resource in (*tctl, *api) if group.startswith("rbac")} == set()
    assert ("", "serviceaccounts") not in api
    identity = ("config.recorder.filesOnly=true", *WEB_IDENTITY)
    assert rules(render(*identity), "poiesis-api")["", "serviceaccounts"] == ["create", "get"]


def test_the_controller_has_the_rights_it_uses():
    assert rules(render(), "poiesis-tctl") == {
        ("", "pods"): ["get", "list", "watch", "patch", "delete"],
        ("", "events"): ["list", "watch"],
        ("batch", "jobs"): ["get", "list", "watch", "delete"],
        ("rbac.authorization.k8s.io", "roles"): ["create"],
        ("rbac.authorization.k8s.io", "rolebindings"): ["create"],
    }
    assert rules(render(), "poiesis-tctl-lease") == {
        ("coordination.k8s.io", "leases"): ["create"],
        ("coordination.k8s.io", "leases:poiesis-tctl"): ["get", "update"],
    }


def rights(manifests: list[Manifest]) -> set[tuple[str, str, str]]:
    """Namespace, Role and ServiceAccount of each binding."""
    found = set()
    for item in manifests:
        if item["kind"] == "RoleBinding":
            (subject,) = item["subjects"]
            assert subject == {"kind": "ServiceAccount", "name": subject["name"], "namespace": "tes"}
            assert item["roleRef"]["name"] == item["metadata"]["name"]
            namespace = item["metadata"].get("namespace", "tes")
            found.add((namespace, item["metadata"]["name"], subject["name"]))
    roles = {
        (item["metadata"].get("namespace", "tes"), item["metadata"]["name"])
        for item in manifests
        if item["kind"] == "Role"
    }
    assert roles == {one[:2] for one in found}
    return found


AT_HOME = {
    ("tes", "poiesis-tctl-lease", "poiesis-tctl"),
    *(("tes", f"poiesis-{name}", f"poiesis-{name}") for name in ("setup", "renewal")),
}
GROUPS = (
    "tasks.namespaces[0].name=lab-a",
    "tasks.namespaces[0].groups={a,shared}",
    "tasks.namespaces[1].name=tes",
)


@pytest.mark.parametrize(
    ("values", "namespaces"),
    [
        ((), ["tes-tasks"]),
        (("tasks.namespace=bio",), ["bio"]),
        (("tasks.namespace=tes",), ["tes"]),
        (GROUPS, ["tes-tasks", "lab-a", "tes"]),
        (("tasks.namespace=lab-a", *GROUPS), ["lab-a", "tes"]),
    ],
)
def test_api_and_controller_have_rights_in_the_tasks_namespaces(values, namespaces):
    manifests = render(*EVERYTHING, *values)
    services = {
        (name, service, service) for name in namespaces for service in ("poiesis-api", "poiesis-tctl")
    }
    assert rights(manifests) == services | AT_HOME
    pod = dict(pods(manifests))["Deployment/poiesis-tctl"]
    assert environment(pod)["POIESIS_TASKS_NAMESPACES"] == ",".join(namespaces)


def test_groups_namespaces_reach_the_api():
    assert config(render(*GROUPS))["tasks"] == {
        "namespace": "tes-tasks",
        "namespaces": [{"name": "lab-a", "groups": ["a", "shared"]}, {"name": "tes"}],
    }


def test_tasks_namespaces_are_created_and_kept():
    manifests = render(*GROUPS)
    assert names(manifests, "Namespace") == ["lab-a", "tes-tasks"]
    metadata = one(manifests, "Namespace", "tes-tasks")["metadata"]
    assert metadata["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert names(render(*GROUPS, "tasks.createNamespace=false"), "Namespace") == []
    assert names(render("tasks.namespace=tes"), "Namespace") == []


NFS = (
    "config.storage.sharedVolumes[0].prefix=/nfs",
    "config.storage.sharedVolumes[0].volume.hostPath.path=/nfs",
)


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ((), "baseline"),
        (SHARED, "baseline"),
        (NFS, "privileged"),
        (("config.executors.securityContext.capabilities.add={SYS_PTRACE}",), "privileged"),
        (("tasks.podSecurity=restricted",), "restricted"),
    ],
)
def test_namespace_enforces_the_level_that_task_pods_pass(values, level):
    labels = one(render(*values), "Namespace", "tes-tasks")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == level


def test_inline_storage_keys_are_in_every_tasks_namespace():
    manifests = render(*INLINE_KEYS, *GROUPS)
    found = [
        item["metadata"]["namespace"]
        for item in manifests
        if (item["kind"], item["metadata"]["name"]) == ("Secret", "poiesis-storage")
    ]
    assert found == ["tes-tasks", "lab-a", "tes"]


@pytest.mark.parametrize("values", [(), EXTERNAL], ids=["embedded", "external"])
def test_the_api_alone_mounts_the_dsn_of_direct_recorders(values):
    """TaskPods cannot: it is in another namespace."""
    mounting = {
        name
        for name, pod in pods(render(*values, *DIRECT))
        for volume in pod.get("volumes", [])
        if [one["key"] for one in volume.get("secret", {}).get("items", [])] == ["recorder-dsn"]
    }
    assert mounting == {"Deployment/poiesis-api"}


@API
def test_recorder_files_are_mounted_where_the_api_reads_them():
    from poiesis_api.config import Document

    manifests = render(*DIRECT)
    files = Document.model_validate(config(manifests)).recorder_postgres
    pod = dict(pods(manifests))["Deployment/poiesis-api"]
    volumes = {volume["name"]: volume.get("secret", {}) for volume in pod["volumes"]}
    mounted = {
        f"{mount['mountPath']}/{item['path']}": (volumes[mount["name"]]["secretName"], item["key"])
        for mount in pod["containers"][0]["volumeMounts"]
        for item in volumes[mount["name"]].get("items", [])
    }
    assert mounted[files.dsn_file] == ("poiesis-recorder", "recorder-dsn")
    assert mounted[files.ca_file] == ("poiesis-postgres-tls", "ca.crt")


@pytest.mark.parametrize("values", [EVERYTHING, (*EXTERNAL, *OIDC)], ids=["embedded", "external"])
def test_every_pod_passes_the_restricted_level(values):
    found = dict(pods(render(*values)))
    assert {name.split("/")[0] for name in found} >= {"Deployment", "Job", "Pod"}
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert all(
            set(volume) - {"name"} <= {"configMap", "emptyDir", "projected", "secret"}
            for volume in pod.get("volumes", [])
        ), name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert set(container["resources"]) == {"requests", "limits"}, name


def test_only_pods_that_ask_kubernetes_have_a_token():
    found = {name: pod["automountServiceAccountToken"] for name, pod in pods(render())}
    assert {re.sub("-[0-9a-f]{10}$", "", name) for name, mounted in found.items() if mounted} == {
        "CronJob/poiesis-renewal",
        "Deployment/poiesis-api",
        "Deployment/poiesis-tctl",
        "Job/poiesis-setup",
    }


def test_no_secret_value_is_in_a_config_map():
    manifests = render(*INLINE_KEYS)
    (secret,) = (item for item in manifests if item["kind"] == "Secret")
    assert len(secret["stringData"]) == 2
    elsewhere = yaml.safe_dump([item for item in manifests if item["kind"] != "Secret"])
    assert [value for value in secret["stringData"].values() if value in elsewhere] == []


def test_no_slow_probe_cuts_the_embedded_database_off():
    manifests = render()
    container = postgres_container(manifests)
    once_started = [container[name] for name in ("readinessProbe", "livenessProbe")]
    assert [probe.get("tcpSocket") for probe in once_started] == [{"port": "postgres"}] * 2
    assert one(manifests, "Service", "poiesis-postgres")["spec"]["publishNotReadyAddresses"] is True


def test_the_embedded_database_comes_with_a_disk_and_an_ordinary_job():
    manifests = render()
    assert names(manifests, "StatefulSet") == ["poiesis-postgres"]
    postgres = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]
    assert (
        postgres["template"]["spec"]["securityContext"].items() >= {"runAsUser": 999, "fsGroup": 999}.items()
    )
    assert postgres["volumeClaimTemplates"][0]["spec"]["resources"] == {"requests": {"storage": "8Gi"}}
    job = job_of(manifests, "migrations")
    assert "annotations" not in job["metadata"]
    assert "ttlSecondsAfterFinished" not in job["spec"]  # a deployment tool would create it again


@pytest.mark.parametrize(
    "values", [(), EVERYTHING, EXTERNAL, DIRECT], ids=["default", "all", "external", "direct"]
)
def test_chart_contains_no_secret_and_renders_the_same_twice(values):
    first, second = template(*values), template(*values)
    assert first.stdout == second.stdout
    secrets = [item for item in yaml.safe_load_all(first.stdout) if item and item["kind"] == "Secret"]
    assert [item["metadata"]["name"] for item in secrets] == ["poiesis-storage"] * (values == EVERYTHING)


def test_no_policy_has_an_empty_list_of_rules():
    """Kubernetes stores none, so that each `kubectl apply` would change the policy."""
    for policy in (item["spec"] for item in render() if item["kind"] == "NetworkPolicy"):
        assert [] not in policy.values()


def test_templates_generate_nothing():
    generators = (
        r"\brand(Alpha|Numeric|Ascii|Bytes|Int)|\bgen(CA|SignedCert|SelfSignedCert|PrivateKey)|uuidv4"
    )
    for file in filter(Path.is_file, CHART.glob("templates/**/*")):
        assert not re.search(generators + r"|\.Release\.Revision", file.read_text()), file


def test_setup_creates_the_secrets_that_pods_need():
    document = setup_document(render())
    made = {one["secret"]: sorted(one["urls"]) for one in document["passwords"]}
    assert made == {
        "poiesis-postgres": ["api-dsn", "migrations-dsn"],
        "poiesis-recorder": ["recorder-dsn"],
    }
    assert document["passwords"][0]["urls"]["api-dsn"] == (
        "postgresql://poiesis_api@poiesis-postgres:5432/poiesis?sslmode=verify-full"
    )
    # Recorders in the tasks' namespaces resolve this name, too.
    recorder_dsn = document["passwords"][1]["urls"]["recorder-dsn"]
    certificate = next(one for one in document["certificates"] if one["secret"] == "poiesis-postgres-tls")
    assert urlsplit(recorder_dsn).hostname == "poiesis-postgres.tes.svc"
    assert "poiesis-postgres.tes.svc" in certificate["names"]
    assert document["authority"] == "poiesis-ca"
    assert {one["secret"]: one["names"] for one in document["certificates"]} == {
        f"poiesis-{service}-tls": [
            f"poiesis-{service}{suffix}" for suffix in ("", ".tes", ".tes.svc", ".tes.svc.cluster.local")
        ]
        for service in ("postgres", "gateway")
    }
    assert document["required"] == []


def test_setup_checks_secrets_of_the_operator_and_does_not_create_them():
    own = (
        "gateway.tlsSecret=gateway",
        "postgresql.caSecret.name=ca",
        "postgresql.existingRecorderSecret=mine",
    )
    document = setup_document(render(*EXTERNAL, *own))
    assert document["passwords"] == document["certificates"] == []
    assert {(one["value"], one["secret"]): one["keys"] for one in document["required"]} == {
        ("postgresql.existingSecret", "my-postgres"): ["migrations-dsn", "api-dsn"],
        ("postgresql.existingRecorderSecret", "mine"): ["recorder-dsn"],
        ("postgresql.caSecret", "ca"): ["ca.crt"],
        ("gateway.tlsSecret", "gateway"): ["tls.crt", "tls.key", "ca.crt"],
    }
    assert rules(render(*EXTERNAL, *own), "poiesis-setup") == {
        ("", f"secrets:{name}"): ["get"] for name in ("my-postgres", "mine", "ca", "gateway")
    }


def test_setup_may_write_its_own_secrets_only():
    own = ("ca", "postgres", "postgres-tls", "gateway-tls", "recorder")
    expected = {("", f"secrets:poiesis-{name}"): ["get", "update"] for name in own}
    for name in ("poiesis-setup", "poiesis-renewal"):
        assert rules(render(), name) == {("", "secrets"): ["create"], **expected}


@pytest.mark.skipif(importlib.util.find_spec("poiesis_setup") is None, reason="setup is not on the path")
@pytest.mark.parametrize("values", [(), EXTERNAL, ("postgresql.tlsSecret=a", "gateway.tlsSecret=b")])
def test_setup_accepts_its_document(values):
    from poiesis_setup.document import Document

    pod = job_of(render(*values), "setup")["spec"]["template"]["spec"]
    assert Document.from_env({"POIESIS_SETUP": environment(pod)["POIESIS_SETUP"]}).authority == "poiesis-ca"


def test_setup_is_a_hook_before_the_migrations_and_its_rights_are_temporary():
    manifests = render(*EXTERNAL)
    weights = {
        item["kind"]: item["metadata"]["annotations"]
        for item in manifests
        if item["metadata"]["name"].startswith("poiesis-setup")
    }
    assert {one["helm.sh/hook"] for one in weights.values()} == {"pre-install,pre-upgrade"}
    assert int(weights["Role"]["helm.sh/hook-weight"]) < int(weights["Job"]["helm.sh/hook-weight"]) < 0
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        assert "hook-succeeded" in weights[kind]["helm.sh/hook-delete-policy"]
    assert "helm.sh/hook-weight" not in job_of(manifests, "migrations")["metadata"]["annotations"]  # 0


def test_other_content_makes_jobs_of_other_names():
    before, after = render(), render("setup.rotation=2026-12", "images.tag=next")
    assert not set(names(before, "Job")) & set(names(after, "Job"))
    assert names(before, "Job") == names(render(release="poiesis"), "Job")


def test_rotation_replaces_the_pods_that_hold_passwords():
    manifests = render("setup.rotation=2026-12")
    for name in ("api", "tctl"):
        template = one(manifests, "Deployment", f"poiesis-{name}")["spec"]["template"]
        assert template["metadata"]["annotations"]["poiesis.io/rotation"] == "2026-12"
    assert setup_document(manifests)["rotation"] == "2026-12"
    assert job_of(manifests, "migrations") == job_of(render(), "migrations")


def test_renewal_runs_the_same_program_on_a_schedule():
    manifests = render("setup.renewal.schedule=5 4 * * 0")
    cron = one(manifests, "CronJob", "poiesis-renewal")["spec"]
    assert cron["schedule"] == "5 4 * * 0"
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    once = job_of(manifests, "setup")["spec"]["template"]["spec"]
    assert pod == {**once, "serviceAccountName": "poiesis-renewal"}
    without = render("setup.renewal.enabled=false")
    assert names(without, "CronJob") == []
    assert "poiesis-renewal" not in names(without, "Role")


def test_superuser_of_the_embedded_database_has_no_secret():
    env = environment({"containers": [postgres_container(render())]})
    assert env["POSTGRES_USER"] == "postgres"
    assert [value for value in env.values() if isinstance(value, dict)] == []


def test_roles_follow_the_secrets_from_a_container_beside_postgres():
    pod = one(render(), "StatefulSet", "poiesis-postgres")["spec"]["template"]["spec"]
    roles = pod["containers"][1]
    assert roles["command"] == ["bash", "/etc/poiesis-roles/roles.sh"]
    (access,) = (volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "access")
    files = {item["path"] for source in access for one in source.values() for item in one["items"]}
    assert files == {"pg_hba.conf", "tls/tls.crt", "tls/tls.key", "migrations-dsn", "api-dsn", "recorder-dsn"}
    scripts = one(render(), "ConfigMap", "poiesis-postgres")["data"]
    for name in ("roles.sh", "roles.sql", "before-conversion.sql", "conversion.sql"):
        assert scripts[name].strip() == (CHART / "files/postgres" / name).read_text().strip()


def test_the_recorders_secret_has_only_its_dsn():
    manifests = render(*DIRECT)
    assert {one["secret"]: list(one["urls"]) for one in setup_document(manifests)["passwords"]}[
        "poiesis-recorder"
    ] == ["recorder-dsn"]


def test_gateway_release_gives_task_pods_no_secret_of_postgres():
    document = config(render())
    assert document["recorder"] == {"transport": "gateway", "filesOnly": False}
    assert document["gateway"]["url"] == "https://poiesis-gateway.tes.svc:8443"
    assert "recorderPostgres" not in document


def test_direct_release_has_no_gateway():
    manifests = render(*DIRECT)
    assert [item for item in manifests if "gateway" in item["metadata"]["name"]] == []
    assert "gateway" not in config(manifests)
    api = dict(pods(manifests))["Deployment/poiesis-api"]
    assert "gateway-ca" not in {volume["name"] for volume in api["volumes"]}


def mounted_files(pod: Manifest) -> dict[str, tuple[str, str]]:
    """Path in the first container -> Secret and key."""
    places = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    return {
        f"{places[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in pod["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }


@pytest.mark.parametrize(
    ("values", "dsn", "certificate", "authority"),
    [
        ((), "poiesis-recorder", "poiesis-gateway-tls", "poiesis-postgres-tls"),
        (
            (
                *(*EXTERNAL, "postgresql.existingRecorderSecret=my-recorder"),
                *("postgresql.caSecret.name=my-ca", "gateway.tlsSecret=my-tls"),
            ),
            *("my-recorder", "my-tls", "my-ca"),
        ),
    ],
    ids=["embedded", "external"],
)
def test_gateway_gets_its_certificate_and_the_recorders_dsn(values, dsn, certificate, authority):
    manifests = render(*values)
    pod = dict(pods(manifests))["Deployment/poiesis-gateway"]
    assert mounted_files(pod) == {
        "/etc/poiesis-recorder/recorder-dsn": (dsn, "recorder-dsn"),
        "/etc/poiesis-gateway/tls.crt": (certificate, "tls.crt"),
        "/etc/poiesis-gateway/tls.key": (certificate, "tls.key"),
        "/etc/poiesis-postgres/ca.crt": (authority, "ca.crt"),
    }
    env = environment(pod)
    assert env["POIESIS_GATEWAY_DSN_FILE"] == "/etc/poiesis-recorder/recorder-dsn"
    assert env["POIESIS_GATEWAY_CERTIFICATE_FILE"] == "/etc/poiesis-gateway/tls.crt"
    assert env["POIESIS_GATEWAY_KEY_FILE"] == "/etc/poiesis-gateway/tls.key"


@pytest.mark.parametrize("values", [(), ("gateway.tlsSecret=mine",)])
def test_api_reads_the_gateways_authority_where_it_is_mounted(values):
    manifests = render(*values)
    pod = dict(pods(manifests))["Deployment/poiesis-api"]
    secret = "mine" if values else "poiesis-gateway-tls"
    path = config(manifests)["gateway"]["caFile"]
    assert mounted_files(pod)[path] == (secret, "ca.crt")
    made = {one["secret"] for one in setup_document(manifests)["certificates"]}
    assert ("poiesis-gateway-tls" in made) is not bool(values)


def test_gateways_certificate_is_for_the_host_in_its_url():
    manifests = render()
    host = urlsplit(config(manifests)["gateway"]["url"]).hostname
    names_of = {one["secret"]: one["names"] for one in setup_document(manifests)["certificates"]}
    assert host in names_of["poiesis-gateway-tls"]


def test_gateways_service_leads_to_its_port():
    manifests = render()
    service = one(manifests, "Service", "poiesis-gateway")["spec"]
    (port,) = service["ports"]
    assert (port["port"], port.get("type")) == (8443, None)
    template = one(manifests, "Deployment", "poiesis-gateway")["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    container_ports = template["spec"]["containers"][0]["ports"]
    assert container_ports[0] == {"name": port["targetPort"], "containerPort": 8443}


def test_gateway_takes_its_limits_from_the_values():
    values = ("bodyBytes=5000000", "maxConnections=7", "connectionsPerAddress=6", "databaseConnections=5")
    manifests = render(*(f"gateway.{value}" for value in values), "gateway.logLevel=DEBUG")
    env = environment(dict(pods(manifests))["Deployment/poiesis-gateway"])
    expected = {
        "BODY_BYTES": "5000000",
        "CONNECTIONS": "7",
        "CONNECTIONS_PER_ADDRESS": "6",
        "DATABASE_CONNECTIONS": "5",
        "LOG_LEVEL": "DEBUG",
    }
    assert {f"POIESIS_GATEWAY_{name}": value for name, value in expected.items()}.items() <= env.items()


def test_gateway_rollout_keeps_every_replica():
    gateway = one(render("gateway.replicas=3"), "Deployment", "poiesis-gateway")["spec"]
    assert gateway["replicas"] == 3
    assert gateway["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    container = gateway["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}


def test_role_of_recorders_has_enough_connections_for_gateways():
    values = ("gateway.replicas=3", "gateway.databaseConnections=5")
    enough = render(*values, "postgresql.recorderConnections=20")
    job = job_of(enough, "migrations")["spec"]["template"]["spec"]
    assert environment(job)["POIESIS_RECORDER_CONNECTIONS"] == "20"
    message = "postgresql.recorderConnections must be 0 or at least 20 with config.recorder.transport gateway"
    assert message in refusal(*values, "postgresql.recorderConnections=19")
    assert render(*values, *DIRECT, "postgresql.recorderConnections=19")


@pytest.mark.skipif(importlib.util.find_spec("poiesis_gateway") is None, reason="gateway is not on the path")
def test_the_gateways_defaults_are_the_charts(monkeypatch):
    from poiesis_gateway.config import Config

    set_by_chart = environment(dict(pods(render()))["Deployment/poiesis-gateway"])
    for name in ("DSN_FILE", "CERTIFICATE_FILE", "KEY_FILE"):
        monkeypatch.setenv(f"POIESIS_GATEWAY_{name}", set_by_chart[f"POIESIS_GATEWAY_{name}"])
    defaults = Config.from_env()
    for name, value in set_by_chart.items():
        monkeypatch.setenv(name, value)
    assert Config.from_env() == defaults


CA_USERS = tuple(("Deployment", f"poiesis-{service}") for service in ("api", "gateway", "tctl"))


def test_the_embedded_database_accepts_tls_with_a_password_only():
    manifests = render()
    rules = one(manifests, "ConfigMap", "poiesis-postgres")["data"]["pg_hba.conf"].splitlines()
    assert rules == [
        "local all all trust",
        "hostssl all postgres all reject",
        "hostssl all all all scram-sha-256",
    ]
    container = postgres_container(manifests)
    assert {"ssl=on", "hba_file=/etc/poiesis-postgres/pg_hba.conf"} <= set(container["args"])


def test_parameters_cannot_switch_tls_off():
    manifests = render("postgresql.parameters.ssl=off", "postgresql.parameters.work_mem=8MB")
    container = postgres_container(manifests)
    assert {"ssl=on", "work_mem=8MB"} <= set(container["args"])
    assert "ssl=off" not in container["args"]


def ca_of(pod):
    """The Secret and key that the first container reads PGSSLROOTCERT from."""
    (container, *_) = pod["containers"]
    path = environment(pod)["PGSSLROOTCERT"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "postgres-ca")
    (volume,) = (one["secret"] for one in pod["volumes"] if one["name"] == "postgres-ca")
    (item,) = volume["items"]
    assert path == f"{mount['mountPath']}/{item['path']}"
    return volume["secretName"], item["key"]


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ((), ("poiesis-postgres-tls", "ca.crt")),
        (("postgresql.tlsSecret=mine",), ("mine", "ca.crt")),
        (
            (*EXTERNAL, "postgresql.caSecret.name=pg-ca", "postgresql.caSecret.key=root.pem"),
            ("pg-ca", "root.pem"),
        ),
    ],
)
def test_every_client_of_postgres_verifies_its_certificate(values, secret):
    manifests = render(*values)
    for kind, name in (*CA_USERS, ("Job", job_of(manifests, "migrations")["metadata"]["name"])):
        assert ca_of(one(manifests, kind, name)["spec"]["template"]["spec"]) == secret, name
    direct = config(render(*values, *DIRECT))
    assert direct["recorderPostgres"] == {"caFile": "/etc/poiesis-postgres/ca.crt"}


def test_an_external_database_with_a_public_certificate_needs_no_ca_secret():
    manifests = render(*EXTERNAL)
    for kind, name in (*CA_USERS, ("Job", job_of(manifests, "migrations")["metadata"]["name"])):
        pod = one(manifests, kind, name)["spec"]["template"]["spec"]
        assert "PGSSLROOTCERT" not in environment(pod), name
    assert "recorderPostgres" not in config(render(*EXTERNAL, *DIRECT))


def test_a_certificate_of_ones_own_replaces_the_charts():
    document = setup_document(render("postgresql.tlsSecret=mine"))
    assert "poiesis-postgres-tls" not in {one["secret"] for one in document["certificates"]}
    assert document["required"][0]["secret"] == "mine"


def test_an_external_database_is_migrated_by_a_hook_with_the_dsns_of_the_given_secret():
    manifests = render(*EXTERNAL)
    assert names(manifests, "StatefulSet") == []
    job = job_of(manifests, "migrations")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    keys = {
        name: source["secretKeyRef"]
        for name, source in environment(job["spec"]["template"]["spec"]).items()
        if isinstance(source, dict)
    }
    assert keys == {
        "POIESIS_MIGRATIONS_DSN": {"name": "my-postgres", "key": "migrations-dsn"},
        "POIESIS_API_DSN": {"name": "my-postgres", "key": "api-dsn"},
        "POIESIS_RECORDER_DSN": {"name": "my-postgres", "key": "recorder-dsn"},
    }
    assert recorder_secret(render(*EXTERNAL, *DIRECT)) == "my-postgres"
    # A hook runs before the release's own objects exist.
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def recorder_secret(manifests: list[Manifest]) -> str:
    """The Secret that the api copies the recorder's DSN from."""
    volumes = dict(pods(manifests))["Deployment/poiesis-api"]["volumes"]
    (name,) = (one["secret"]["secretName"] for one in volumes if one["name"] == "recorder")
    return str(name)


def test_the_recorders_dsn_can_come_from_a_secret_of_its_own():
    manifests = render(*EXTERNAL, *DIRECT, "postgresql.existingRecorderSecret=my-recorder")
    assert recorder_secret(manifests) == "my-recorder"
    job = job_of(manifests, "migrations")
    source = environment(job["spec"]["template"]["spec"])["POIESIS_RECORDER_DSN"]
    assert source == {"secretKeyRef": {"name": "my-recorder", "key": "recorder-dsn"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("postgresql.embedded=false",),
            "postgresql.existingSecret is empty: with postgresql.embedded=false it must name",
        ),
        (
            ("storageSecret.accessKey=x",),
            "storageSecret.accessKey and storageSecret.secretKey must be set together",
        ),
        (
            ("config.storage.s3.secretName=s", *INLINE_KEYS),
            "storageSecret.accessKey and storageSecret.secretKey must be empty if config.storage.s3",
        ),
        (("storage.s3.endpoint=https://s3",), "at '': additional properties 'storage' not allowed"),
        (("config.images.trec=x",), "'/config': additional properties 'images' not allowed"),
        (("config.queue=null",), "'/config': missing property 'queue'"),
        (("config.auth.mode=null",), "'/config/auth': missing property 'mode'"),
        (("config.backendParameters.tolerations={spot:Never}",), "'/config/backendParameters/tolerations/0'"),
        (("config.backendParameters.gpus=1",), "gpus"),
        (
            ("config.volume.type=nfs",),
            "'/config/volume/type': value must be one of 'pvc', 'ephemeral', 'emptyDir'",
        ),
        (
            ("config.queue.maxActiveTask=1",),
            "'/config/queue': additional properties 'maxActiveTask' not allowed",
        ),
        (
            ("config.queue.maxActiveTasks=0",),
            "'/config/queue/maxActiveTasks': exclusiveMinimum: got 0, want 0",
        ),
        (("config.queue.pollSeconds=soon",), "'/config/queue/pollSeconds': 'soon' does not match pattern"),
        (("config.executors.onError=retry",), "'/config/executors/onError': value must be one of"),
        (
            ("config.executors.outputsAfterKillSeconds=-1",),
            "'/config/executors/outputsAfterKillSeconds': minimum: got -1",
        ),
        (("config.executors.defaultResources.memory=2 GiB",), "'/config/executors/defaultResources/memory'"),
        *(
            ((f"config.executors.cpuLimit={limit}",), "'/config/executors/cpuLimit'")
            for limit in ("idle", "0.5", "0", "1001")
        ),
        (("api.replicas=0",), "'/api/replicas': minimum: got 0, want 1"),
        (
            ("tctl.thresholds.imagePullSeconds=soon",),
            "'/tctl/thresholds/imagePullSeconds': got string, want integer",
        ),
        (("tctl.podMonitor.interval=often",), "'/tctl/podMonitor/interval'"),
        (
            ("config.filers[0].name=x", "config.filers[0].inputs.image=y"),
            "'/config/filers/0/inputs': missing properties 'schemes', 'command'",
        ),
        (("config.storage.s3.endpoint=minio:9000",), "'/config/storage/s3/endpoint'"),
        (("config.storage.s3.webIdentity.stsEndpoint=sts",), "'/config/storage/s3/webIdentity/stsEndpoint'"),
        (("config.storage.s3.webIdentity.audience=",), "'/config/storage/s3/webIdentity/audience'"),
        ((f"{ENTRY}.name=a",), "'/config/storage/s3/credentials/0': missing property 'urls'"),
        ((*CREDENTIALS, f"{ENTRY}.name=Lab_A"), "'/config/storage/s3/credentials/0/name'"),
        ((*CREDENTIALS, f"{ENTRY}.urls={{https://b}}"), "'/config/storage/s3/credentials/0/urls/0'"),
        ((*CREDENTIALS, f"{ENTRY}.groups=[]"), "'/config/storage/s3/credentials/0/groups'"),
        ((*CREDENTIALS, f"{ENTRY}.secret=a"), "additional properties 'secret' not allowed"),
        (("config.recorder.transport=http",), "'/config/recorder/transport': value must be one of"),
        (("config.recorder.transport=null",), "'/config/recorder': missing property 'transport'"),
        (("gateway.bodyBytes=67108865",), "'/gateway/bodyBytes': maximum: got"),
        (("gateway.bodyBytes=4194303",), "'/gateway/bodyBytes': minimum: got"),
        (("gateway.replicas=0",), "'/gateway/replicas': minimum: got 0, want 1"),
        (("config.auth.mode=ldap",), "'/config/auth/mode': value must be one of 'none', 'basic', 'oidc'"),
        (("config.auth.mode=basic",), "'/config/auth/basic': got null, want object"),
        (("config.auth.mode=oidc",), "'/config/auth/oidc': got null, want object"),
        (("config.auth.mode=oidc", "config.auth.oidc.issuer=https://a"), "missing property 'audiences'"),
        (("config.auth.oidc.issuer=sso.example.org",), "'/config/auth/oidc/issuer'"),
        (("config.auth.oidc.algorithms={none}",), "'/config/auth/oidc/algorithms/0': value must be one of"),
        (("config.auth.oidc.algorithms={HS256}",), "'/config/auth/oidc/algorithms/0': value must be one of"),
        (
            (*OIDC, "config.auth.oidc.introspection.clientSecret=null"),
            "introspection/clientSecret': got null, want object",
        ),
        (("config.userLimits.active.whenReached=drop",), "'/config/userLimits/active/whenReached'"),
        (("config.userLimits.cpuCores=-1",), "'/config/userLimits/cpuCores'"),
        (("config.executors.maxResources.cpuCores=0",), "'/config/executors/maxResources/cpuCores'"),
        (("config.limits.taskObjectBytes=2000000",), "'/config/limits/taskObjectBytes'"),
        (("config.http.allowedOrigins={https://a.example/}",), "'/config/http/allowedOrigins/0'"),
        (("config.http.allowedOrigins={*}",), "'/config/http/allowedOrigins/0'"),
        (("images.pullPolicy=Sometimes",), "'/images/pullPolicy': value must be one of"),
        (("config.storage.s3.outputKeys=encoded",), "'/config/storage/s3/outputKeys': value must be one of"),
        (("config.storage.sharedVolumes[0].prefix=/a",), "missing property 'volume'"),
        (
            ("config.storage.sharedVolumes[0].prefix=a", "config.storage.sharedVolumes[0].volume.nfs.path=/"),
            "'/config/storage/sharedVolumes/0/prefix'",
        ),
    ],
)
def test_invalid_value_is_rejected_by_name(values, message):
    assert message in refusal(*values)


def test_inline_storage_keys_become_a_secret():
    manifests = render(*INLINE_KEYS)
    assert one(manifests, "Secret", "poiesis-storage")["stringData"] == {
        "AWS_ACCESS_KEY_ID": "inline-access-key",
        "AWS_SECRET_ACCESS_KEY": "inline-secret-key",
    }
    assert config(manifests)["storage"]["s3"]["secretName"] == "poiesis-storage"


def test_own_storage_secret_is_used():
    manifests = render("config.storage.s3.secretName=keys")
    assert "poiesis-storage" not in names(manifests, "Secret")
    assert config(manifests)["storage"]["s3"]["secretName"] == "keys"


def test_config_is_passed_on_with_what_kubernetes_knows():
    values: Manifest = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
    given = (
        *("config.queue.maxActiveTasks=3", "config.queue.pollSeconds=0.5", "config.pod.labels.team=a"),
        *("config.executors.defaultResources.cpu=2", "config.volume.storageClass=fast"),
    )
    expected = dict(values)
    expected["queue"] = {**values["queue"], "maxActiveTasks": 3, "pollSeconds": "0.5"}
    expected["pod"] = {**values["pod"], "labels": {"team": "a"}}
    expected["executors"] = {**values["executors"], "defaultResources": {"cpu": 2, "memory": "2Gi"}}
    expected["volume"] = {**values["volume"], "storageClass": "fast"}
    expected["serviceInfo"] = {**values["serviceInfo"], "version": "0.2.0"}
    expected["tasks"] = {"namespace": "tes-tasks", "namespaces": []}
    expected["http"] = {**values["http"], "hosts": SERVICE_NAMES}
    expected["gateway"] = {
        "url": "https://poiesis-gateway.tes.svc:8443",
        "caFile": "/etc/poiesis-gateway/ca.crt",
    }
    own = ("trec", "helper", "tif", "tof", "rclone", "file")
    expected["images"] = {
        "pullPolicy": "IfNotPresent",
        "pullSecrets": [],
        **{service: f"lab/poiesis-{service}:0.2.0" for service in own},
    }
    assert config(render(*given, "images.registry=lab")) == expected


def test_secrets_of_credentials_are_in_no_other_object():
    manifests = render(*CREDENTIALS)
    assert "lab-a-keys" not in yaml.safe_dump([item for item in manifests if item["kind"] != "ConfigMap"])


def images(manifests: list[Manifest]) -> set[str]:
    used = {container["image"] for _, pod in pods(manifests) for container in pod["containers"]}
    given = config(manifests)["images"]
    return used | {given[service] for service in ("trec", "helper", "tif", "tof", "rclone", "file")}


def test_images_are_of_one_registry_and_version():
    services = (
        "api",
        "tctl",
        "gateway",
        "trec",
        "helper",
        "tif",
        "tof",
        "rclone",
        "file",
        "migrations",
        "setup",
    )
    own = {f"registry.local/x/poiesis-{service}:9.9" for service in services}
    assert images(render("images.registry=registry.local/x/", "images.tag=9.9")) == own | {"postgres:17"}


def test_every_image_can_be_replaced_alone():
    services = (
        "api",
        "tctl",
        "gateway",
        "trec",
        "helper",
        "tif",
        "tof",
        "rclone",
        "file",
        "migrations",
        "setup",
    )
    values = [f"images.{service}=lab/{service}@sha256:0" for service in services]
    assert images(render(*values, "postgresql.image=lab/postgres:1")) == {
        *(f"lab/{service}@sha256:0" for service in services),
        "lab/postgres:1",
    }


DIGEST = f"sha256:{'a' * 64}"
ON_A_CLUSTER = ("--api-versions", "v1/Pod")


def installation(*values: str) -> subprocess.CompletedProcess[str]:
    """Render as `helm install` does, with the kinds of a cluster."""
    given = [part for value in values for part in ("--set", value)]
    return helm("template", "tes", str(CHART), "--kube-version", FLOOR, *ON_A_CLUSTER, *given)


def test_released_images_are_named_by_digest():
    found = images(render(f"images.digests.api={DIGEST}", f"images.digests.trec={DIGEST}"))
    assert f"ghcr.io/jaeaeich/poiesis-api:0.2.0@{DIGEST}" in found
    assert f"ghcr.io/jaeaeich/poiesis-trec:0.2.0@{DIGEST}" in found


def test_mirror_keeps_the_digests():
    found = images(render("images.registry=mirror.example.org/x", f"images.digests.api={DIGEST}"))
    assert f"mirror.example.org/x/poiesis-api:0.2.0@{DIGEST}" in found


def test_another_tag_has_other_digests():
    found = images(render("images.tag=9.9", f"images.digests.api={DIGEST}"))
    assert "ghcr.io/jaeaeich/poiesis-api:9.9" in found


def test_digest_must_be_complete():
    assert "/images/digests/api" in refusal("images.digests.api=sha256:abc")


def test_installation_from_a_checkout_explains_where_images_are():
    done = installation()
    assert done.returncode != 0
    assert "this chart is from a checkout, and its images may not be published" in done.stderr
    assert "helm install tes oci://ghcr.io/jaeaeich/charts/poiesis" in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        f"images.digests.api={DIGEST}",
        "images.tag=0.2.0",
        "images.registry=",
        "images.registry=registry.local/x",
        "images.api=poiesis/api:1",
    ],
)
def test_installation_with_chosen_images_is_accepted(value: str):
    done = installation(value)
    assert done.returncode == 0, done.stderr


def identity_files(manifests: list[Manifest]) -> dict[str, tuple[str, str]]:
    """Path in the api's container -> Secret and key."""
    pod = dict(pods(manifests))["Deployment/poiesis-api"]
    mounted = {volume["name"]: volume["mountPath"] for volume in pod["containers"][0]["volumeMounts"]}
    return {
        f"{mounted[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in pod["volumes"]
        if "secret" in volume and volume["name"].startswith("identity-")
        for item in volume["secret"]["items"]
    }


def test_without_accounts_no_identity_secret_is_mounted():
    assert identity_files(render()) == {}


def test_migrations_get_the_number_of_service_connections():
    manifests = render("api.replicas=3", "postgresql.recorderConnections=99")
    job = job_of(manifests, "migrations")["spec"]["template"]["spec"]
    env = {one["name"]: one.get("value") for one in job["containers"][0]["env"]}
    assert env["POIESIS_RECORDER_CONNECTIONS"] == "99"
    assert env["POIESIS_SERVICE_CONNECTIONS"] == str(4 * 10 + 3 * (8 + 2))


@API
def test_users_secret_is_mounted_where_the_api_reads_it():
    from poiesis_api.config import IdentityFiles

    manifests = render(*BASIC, "config.auth.basic.usersSecret.key=auth")
    assert identity_files(manifests) == {str(IdentityFiles().users): ("my-users", "auth")}
    assert identity_files(render(*BASIC)) == {str(IdentityFiles().users): ("my-users", "htpasswd")}


@API
def test_issuer_secrets_are_mounted_where_the_api_reads_them():
    from poiesis_api.config import IdentityFiles

    assert identity_files(render(*OIDC)) == {
        str(IdentityFiles().ca): ("my-ca", "ca.crt"),
        str(IdentityFiles().client_secret): ("my-client", "client-secret"),
    }
    assert identity_files(render(*OIDC[:3])) == {}


@API
@pytest.mark.parametrize(
    "values",
    [
        *(
            (),
            DIRECT,
            (*EXTERNAL, *DIRECT),
            EVERYTHING,
            EXTERNAL,
            BASIC,
            OIDC,
            OIDC[:3],
            USER_LIMITS,
            CREDENTIALS,
            WEB_IDENTITY,
        ),
        ("config.executors.defaultResources.cpu=0.5", "config.resources.trec.limits.memory=134217728"),
        *((f"config.executors.cpuLimit={limit}",) for limit in ("none", "request", "1.5", "4")),
        ("config.queue.pollSeconds=0.5", "config.volume.defaultSizeGb=2.5", "config.userLimits.gpus=0.5"),
        ("config.queue.maxActiveTasks=null", "config.limits.bodyBytes=null"),
        (r"config.executors.extendedResources.example\.org/fuse=1", "config.pod.activeDeadlineSeconds=99"),
        RCLONE,
        SHARED,
        ("config.http.allowedOrigins={https://a.example,http://localhost:3000,http://[::1]:3000}",),
    ],
)
def test_api_accepts_the_configuration(values, tmp_path):
    from poiesis_api.config import Document

    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(render(*values))))
    document = Document.load(path)
    (container,) = one(render(*values), "Deployment", "poiesis-api")["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [
        {"name": "http", "containerPort": document.http.port},
        {"name": "metrics", "containerPort": document.http.metrics_port},
    ]
    assert document.images.trec.endswith("poiesis-trec:0.2.0")


@pytest.mark.skipif(
    importlib.util.find_spec("poiesis_tctl") is None, reason="the controller is not on the path"
)
def test_the_controllers_defaults_are_the_charts(monkeypatch):
    from poiesis_tctl.config import Config

    pod = dict(pods(render()))["Deployment/poiesis-tctl"]
    set_by_chart = {name: value for name, value in environment(pod).items() if isinstance(value, str)}
    needed = {
        "POIESIS_DSN": "postgresql://x",
        "POD_NAME": "a",
        "POD_NAMESPACE": "b",
        "POIESIS_TASKS_NAMESPACES": set_by_chart["POIESIS_TASKS_NAMESPACES"],
    }
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    defaults = Config.from_env()
    for name, value in set_by_chart.items():
        monkeypatch.setenv(name, value)
    assert Config.from_env() == defaults


ARCHIVE = ("tasks.retention.archive.url=s3://archive/tes", "tasks.retention.archive.secretName=archive-keys")


def test_retention_reaches_the_controller():
    values = ("days=0.5", "logDays=7", "daysByState.COMPLETE=30", "daysByState.CANCELED=1.5")
    manifests = render(*(f"tasks.retention.{value}" for value in values))
    env = environment(dict(pods(manifests))["Deployment/poiesis-tctl"])
    assert env["POIESIS_RETENTION_DAYS"] == "0.5"
    assert env["POIESIS_RETENTION_LOG_DAYS"] == "7"
    assert env["POIESIS_RETENTION_DAYS_BY_STATE"] == "CANCELED=1.5,COMPLETE=30"
    assert not {"POIESIS_RETENTION_ARCHIVE", "AWS_ACCESS_KEY_ID"} & env.keys()


def test_archive_reaches_the_controller():
    ca = ("tasks.retention.archive.caSecret.name=archive-ca", "tasks.retention.archive.endpoint=https://s3")
    pod = dict(pods(render(*ARCHIVE, *ca)))["Deployment/poiesis-tctl"]
    env = environment(pod)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert env[name] == {"secretKeyRef": {"name": "archive-keys", "key": name}}
    assert env["POIESIS_RETENTION_ARCHIVE"] == "s3://archive/tes"
    assert env["AWS_ENDPOINT_URL_S3"] == "https://s3"
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert {name: mounts[name] for name in ("archive", "archive-ca")} == {
        "archive": "/tmp",
        "archive-ca": "/etc/poiesis-archive",
    }
    assert env["AWS_CA_BUNDLE"] == "/etc/poiesis-archive/ca.crt"
    assert {"name": "archive", "emptyDir": {"sizeLimit": "512Mi"}} in pod["volumes"]


def test_archive_without_keys_is_refused():
    assert "tasks.retention.archive.secretName is empty" in refusal(ARCHIVE[0])


@pytest.mark.parametrize("value", ["days=-1", "daysByState.RUNNING=3", "archive.url=https://b"])
def test_invalid_retention_is_refused(value):
    assert "tasks/retention" in refusal(f"tasks.retention.{value}")


@pytest.mark.parametrize(("service", "port"), [("api", "metrics"), ("tctl", "health"), ("gateway", "health")])
def test_metrics_are_scraped_where_that_is_asked_for(service, port):
    manifests = render(
        f"{service}.podMonitor.enabled=true",
        f"{service}.podMonitor.interval=1m",
        f"{service}.podMonitor.labels.release=prometheus",
    )
    monitor = one(manifests, "PodMonitor", f"poiesis-{service}")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    template = one(manifests, "Deployment", f"poiesis-{service}")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert port in [one["name"] for one in container["ports"]]
    selector = monitor["spec"].pop("selector")["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert selector["app.kubernetes.io/component"] == service
    assert monitor["spec"] == {"podMetricsEndpoints": [{"port": port, "path": "/metrics", "interval": "1m"}]}


def test_without_that_the_chart_needs_no_prometheus_operator():
    assert names(render(*EVERYTHING), "PodMonitor") == []


def test_a_changed_configuration_restarts_the_api():
    def checksum(*values: str) -> str:
        template = one(render(*values), "Deployment", "poiesis-api")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("config.queue.maxActiveTasks=5")


def test_no_request_is_lost_in_a_rollout():
    api = one(render(), "Deployment", "poiesis-api")["spec"]
    assert api["replicas"] == 2
    assert api["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    container = api["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    drain = config(render("config.http.drainSeconds=7"))["http"]["drainSeconds"]
    assert drain == 7 < api["template"]["spec"]["terminationGracePeriodSeconds"]
    assert names(render(), "PodDisruptionBudget") == ["poiesis-api", "poiesis-gateway", "poiesis-tctl"]


def test_one_replica_has_no_disruption_budget_that_would_block_a_drain():
    one_each = ("api.replicas=1", "gateway.replicas=1", "tctl.replicas=1")
    assert names(render(*one_each), "PodDisruptionBudget") == []


def test_pull_secrets_reach_every_pod():
    manifests = render("images.pullSecrets={mine}", *EVERYTHING)
    assert all(pod["imagePullSecrets"] == [{"name": "mine"}] for _, pod in pods(manifests))
    assert config(manifests)["images"]["pullSecrets"] == ["mine"]


def test_a_release_of_another_name_and_a_long_one():
    assert "tes-poiesis-api" in names(render(release="tes"), "Deployment")
    long = render(release="a-name-of-53-characters-which-is-as-long-as-helm-lets")
    assert all(len(item["metadata"]["name"]) <= 63 for item in long)


PRIVATE = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
]
COMPONENT = "app.kubernetes.io/component"


def tasks_egress(*values: str) -> list[Manifest]:
    policy: Manifest = one(render(*values), "NetworkPolicy", "poiesis-tasks")["spec"]
    egress: list[Manifest] = policy["egress"]
    return egress


def component_peers(policy: Manifest) -> list[str]:
    """Return the components among the sources of a policy's first rule; "task" for TaskPods."""
    return [
        source["podSelector"].get("matchLabels", {}).get(COMPONENT, "task")
        for source in policy["spec"]["ingress"][0]["from"]
    ]


def test_tasks_accept_no_connection():
    policy = one(render(), "NetworkPolicy", "poiesis-tasks")["spec"]
    assert policy["podSelector"] == {"matchExpressions": [{"key": "poiesis.io/task", "operator": "Exists"}]}
    assert (policy["policyTypes"], "ingress" in policy) == (["Ingress", "Egress"], False)


def test_every_namespace_of_tasks_has_the_policy():
    manifests = render(*GROUPS)
    policies = [
        (item["metadata"]["namespace"], item["spec"])
        for item in manifests
        if (item["kind"], item["metadata"]["name"]) == ("NetworkPolicy", "poiesis-tasks")
    ]
    assert [namespace for namespace, _ in policies] == ["tes-tasks", "lab-a", "tes"]
    assert all(spec == policies[0][1] for _, spec in policies)
    (peer,) = one(manifests, "NetworkPolicy", "poiesis-gateway")["spec"]["ingress"][0]["from"]
    (selector,) = peer["namespaceSelector"]["matchExpressions"]
    assert selector["values"] == ["tes-tasks", "lab-a", "tes"]


def test_tasks_reach_dns_their_report_the_api_server_and_public_addresses():
    dns, report, api_server, public = tasks_egress()
    assert dns == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            },
            {"ipBlock": {"cidr": "169.254.20.10/32"}},
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    (peer,) = report["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "tes"}}
    assert peer["podSelector"]["matchLabels"][COMPONENT] == "gateway"
    assert report["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert api_server == {"ports": [{"protocol": "TCP", "port": port} for port in (443, 6443)]}
    assert public == {
        "to": [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE, "168.63.129.16/32"]}},
            {"ipBlock": {"cidr": "2000::/3"}},
        ]
    }


def test_addresses_of_the_api_server_can_be_set():
    _, _, api_server, _ = tasks_egress("networkPolicy.apiServer.cidrs={10.1.2.3/32}")
    assert api_server["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]


def test_tasks_of_files_only_do_not_reach_the_api_server():
    given = ("networkPolicy.apiServer.cidrs={10.1.2.3/32}", "config.recorder.filesOnly=true")
    dns, report, _, public = tasks_egress()
    assert tasks_egress(*given) == [dns, report, public]


def test_denied_networks_are_subtracted_by_address_family():
    denied = "203.0.113.0/24,2001:db8::/32,10.0.0.0/8,fd00::/8"  # the last two are not public
    *_, public = tasks_egress(f"networkPolicy.tasks.deny={{{denied}}}")
    assert [peer["ipBlock"]["except"] for peer in public["to"]] == [
        [*PRIVATE, "203.0.113.0/24"],
        ["2001:db8::/32"],
    ]


@pytest.mark.parametrize(
    ("endpoint", "peer", "port"),
    [
        ("http://10.1.2.3:9000", {"ipBlock": {"cidr": "10.1.2.3/32"}}, 9000),
        ("https://10.1.2.3", {"ipBlock": {"cidr": "10.1.2.3/32"}}, 443),
        ("http://[fd00::5]:9000", {"ipBlock": {"cidr": "fd00::5/128"}}, 9000),
        ("http://minio.storage.svc:9000", "storage", 9000),
        ("http://minio.storage.svc.cluster.local", "storage", 80),
        ("https://s3.example.org", None, None),
        ("https://minio.storage.example.org", None, None),
        ("https://minio.storage.svcs.example.org", None, None),
    ],
)
def test_tasks_reach_private_object_storage_that_is_configured(endpoint, peer, port):
    rules = tasks_egress(f"config.storage.s3.endpoint={endpoint}")[4:]
    if isinstance(peer, str):
        peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer}}}
    assert rules == ([] if peer is None else [{"to": [peer], "ports": [{"protocol": "TCP", "port": port}]}])


def test_tasks_reach_each_endpoint_once():
    entry = "config.storage.s3.credentials"
    rules = tasks_egress(
        "config.storage.s3.endpoint=http://10.1.2.3:9000",
        *(f"{entry}[0].name=a", f"{entry}[0].urls={{s3://a}}", f"{entry}[0].anonymous=true"),
        *(f"{entry}[1].name=b", f"{entry}[1].urls={{s3://b}}", f"{entry}[1].anonymous=true"),
        *(f"{entry}[0].endpoint=http://10.1.2.3:9000", f"{entry}[1].endpoint=http://10.1.2.4:9000"),
    )[4:]
    assert [rule["to"][0]["ipBlock"]["cidr"] for rule in rules] == ["10.1.2.3/32", "10.1.2.4/32"]


def test_allowed_destinations_are_networks_ports_or_pods():
    entry = "networkPolicy.tasks.allow"
    rules = tasks_egress(
        f"{entry}[0]=10.20.0.0/16",
        *(
            f"{entry}[1].cidr=10.30.0.0/16",
            f"{entry}[1].except={{10.30.1.0/24}}",
            f"{entry}[1].ports={{5432}}",
        ),
        *(f"{entry}[2].namespaceSelector.matchLabels.team=a", f"{entry}[2].podSelector.matchLabels.app=db"),
    )
    assert rules[4:] == [
        {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]},
        {
            "to": [{"ipBlock": {"cidr": "10.30.0.0/16", "except": ["10.30.1.0/24"]}}],
            "ports": [{"protocol": "TCP", "port": 5432}],
        },
        {
            "to": [
                {
                    "namespaceSelector": {"matchLabels": {"team": "a"}},
                    "podSelector": {"matchLabels": {"app": "db"}},
                }
            ]
        },
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("networkPolicy.tasks.allow[0].ports={80}",), "must have cidr, namespaceSelector or podSelector"),
        (
            (
                "networkPolicy.tasks.allow[0].cidr=10.1.0.0/16",
                "networkPolicy.tasks.allow[0].podSelector.matchLabels.app=db",
            ),
            "must have either cidr or selectors",
        ),
        (("networkPolicy.tasks.allow[0]=db.example.org",), "networkPolicy"),
        (("networkPolicy.tasks.deny[0]=10.0.0.1",), "networkPolicy"),
    ],
)
def test_destinations_without_a_meaning_are_refused(values, message):
    assert message in refusal(*values)


def test_postgres_accepts_services_and_jobs_only():
    components = component_peers(one(render(), "NetworkPolicy", "poiesis-postgres"))
    assert components == ["api", "tctl", "gateway", "migrations", "setup"]
    workloads = {
        item["spec"]["template"]["metadata"]["labels"][COMPONENT]
        for item in render()
        if item["kind"] in ("Deployment", "Job")
    }
    assert workloads <= set(components)


def test_recorders_without_gateway_reach_postgres():
    manifests = render(*DIRECT)
    assert "task" in component_peers(one(manifests, "NetworkPolicy", "poiesis-postgres"))
    report = one(manifests, "NetworkPolicy", "poiesis-tasks")["spec"]["egress"][1]
    assert report["to"][0]["podSelector"]["matchLabels"][COMPONENT] == "postgres"
    assert report["ports"] == [{"protocol": "TCP", "port": 5432}]


def test_gateway_accepts_reports_of_tasks_and_readers_of_metrics():
    reports, metrics = one(render(), "NetworkPolicy", "poiesis-gateway")["spec"]["ingress"]
    namespaces = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["tes-tasks"]}
    assert reports == {
        "ports": [{"protocol": "TCP", "port": 8443}],
        "from": [
            {
                "namespaceSelector": {"matchExpressions": [namespaces]},
                "podSelector": {"matchExpressions": [{"key": "poiesis.io/task", "operator": "Exists"}]},
            }
        ],
    }
    assert metrics == {"ports": [{"protocol": "TCP", "port": 8081}]}


def test_services_accept_configured_sources_only():
    source = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}
    label = r"namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=edge"
    manifests = render(f"networkPolicy.api.from[0].{label}", f"networkPolicy.metrics.from[0].{label}")
    api, api_metrics = one(manifests, "NetworkPolicy", "poiesis-api")["spec"]["ingress"]
    assert api["from"][0] == source
    assert (api_metrics["from"], api_metrics["ports"]) == ([source], [{"protocol": "TCP", "port": "metrics"}])
    assert api["from"][1]["podSelector"]["matchLabels"][COMPONENT] == "test"
    (metrics,) = one(manifests, "NetworkPolicy", "poiesis-tctl")["spec"]["ingress"]
    assert (metrics["from"], metrics["ports"]) == ([source], [{"protocol": "TCP", "port": "health"}])


def test_every_pod_has_a_policy():
    manifests = render()
    chosen = [
        item["spec"]["podSelector"].get("matchLabels", {}).get(COMPONENT)
        for item in manifests
        if item["kind"] == "NetworkPolicy"
    ]
    (jobs,) = one(manifests, "NetworkPolicy", "poiesis-jobs")["spec"]["podSelector"]["matchExpressions"]
    for item in manifests:
        pod = item if item["kind"] == "Pod" else item.get("spec", {}).get("template")
        if pod and "containers" in pod["spec"]:
            assert pod["metadata"]["labels"][COMPONENT] in {*chosen, *jobs["values"]}


def test_the_test_pod_has_the_rules_of_tasks():
    manifests = render("networkPolicy.tasks.allow={10.20.0.0/16}")
    tasks, test = (
        one(manifests, "NetworkPolicy", f"poiesis-{name}")["spec"] for name in ("tasks", "test-networks")
    )
    assert {**tasks, "podSelector": None} == {**test, "podSelector": None}
    pod = one(manifests, "Pod", "poiesis-test-networks")
    assert test["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_policies_can_be_switched_off():
    assert names(render("networkPolicy.enabled=false"), "NetworkPolicy") == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("api.ingress.enabled=true", "api.ingress.enabled is true"),
        ("api.service.type=NodePort", "api.service.type is NodePort"),
        ("api.service.type=LoadBalancer", "api.service.type is LoadBalancer"),
    ],
)
def test_service_without_authentication_is_not_published_by_accident(value, message):
    assert message in refusal(value)
    for accepted in (("config.auth.allowAnonymous=true",), BASIC):
        assert names(render(value, *accepted), "Service")


def test_api_knows_its_names():
    values = (*BASIC, "api.ingress.enabled=true", "api.ingress.host=tes.example.org")
    assert config(render(*values))["http"]["hosts"] == [*SERVICE_NAMES, "tes.example.org"]
    more = config(render("config.http.hosts={tes.lab.example}"))
    assert more["http"]["hosts"] == ["tes.lab.example", *SERVICE_NAMES]
