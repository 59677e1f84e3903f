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

import pytest
import yaml
from cryptography import x509

CHART = Path(__file__).parents[1] / "poiesis"
FLOOR = "1.29.0"
EXTERNAL = ("postgresql.embedded=false", "postgresql.existingSecret=my-postgres")
INLINE_KEYS = ("storage.s3.accessKey=inline-access-key", "storage.s3.secretKey=inline-secret-key")
BASIC = ("auth.mode=basic", "auth.basic.existingSecret=my-users")
OIDC = (
    *(
        "auth.mode=oidc",
        "auth.oidc.issuer=https://sso.example.org/realms/science",
        "auth.oidc.audiences={tes}",
    ),
    *("auth.oidc.scopes={tes}", "auth.oidc.caSecret.name=my-ca", "auth.administrators.groups={admins}"),
    *("auth.oidc.introspection.clientId=tes-server", "auth.oidc.introspection.existingSecret=my-client"),
    *("auth.sharing.tag=group", "auth.oidc.leewaySeconds=5", "auth.oidc.staleSeconds=0.5"),
)
CREDENTIALS = (
    *(
        "storage.s3.credentials[0].name=lab-a",
        "storage.s3.credentials[0].urls={s3://lab-a,s3://shared/a/}",
        "storage.s3.credentials[0].secretName=lab-a-keys",
    ),
    *("storage.s3.credentials[0].users={alice}", "storage.s3.credentials[0].groups={lab-a}"),
    *(
        "storage.s3.credentials[1].name=public",
        "storage.s3.credentials[1].urls={s3://public}",
        "storage.s3.credentials[1].anonymous=true",
    ),
    *(
        "storage.s3.credentials[1].endpoint=https://s3.example.org",
        "storage.s3.credentials[1].region=eu-1",
        "storage.s3.credentials[1].addressingStyle=virtual",
    ),
    *(
        "storage.s3.credentials[1].requesterPays=false",
        "storage.s3.credentials[1].caSecret.name=public-ca",
    ),
)
ROLE = "arn:aws:iam::123456789012:role/tes"
WEB_IDENTITY = (
    f"storage.s3.webIdentity.roleArn={ROLE}",
    "storage.s3.webIdentity.stsEndpoint=https://sts.example.org",
)
USER_LIMITS = (
    *("userLimits.active.tasks=5", "userLimits.active.whenReached=refuse", "userLimits.queuedTasks=6"),
    *(
        "userLimits.requests.perSecond=0.5",
        "userLimits.cpuCores=7.5",
        "userLimits.ramGb=8",
        "userLimits.diskGb=9",
        "userLimits.gpus=2",
    ),
)
EVERYTHING = (
    "networkPolicy.enabled=true",
    "api.ingress.enabled=true",
    "api.ingress.host=tes.example.org",
    *INLINE_KEYS,
)

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
        *("ConfigMap", "Deployment", "Ingress", "Job", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Role"),
        *("RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"),
    }


def test_the_controller_follows_kueue_only_where_there_is_a_queue():
    kueue = ("kueue.x-k8s.io", "workloads")
    for values in (("queue.kueueQueueName=lq", "volume.type=ephemeral"), ("backendParameters.queue={lab}",)):
        manifests = render(*values)
        assert rules(manifests, "poiesis-tctl")[kueue] == ["list", "watch"]
        assert environment(dict(pods(manifests))["Deployment/poiesis-tctl"])["POIESIS_KUEUE"] == "true"
    assert kueue not in rules(render(), "poiesis-tctl")
    assert environment(dict(pods(render()))["Deployment/poiesis-tctl"])["POIESIS_KUEUE"] == "false"


def test_the_api_has_the_rights_it_uses():
    assert rules(render(), "poiesis-api") == {
        ("batch", "jobs"): ["create", "get", "patch", "delete"],
        ("", "secrets"): ["create", "get"],
        ("", "serviceaccounts"): ["create", "get"],
        ("", "persistentvolumeclaims"): ["create", "get"],
    }


def test_the_controller_has_the_rights_it_uses():
    assert rules(render(), "poiesis-tctl") == {
        ("", "pods"): ["get", "list", "watch", "patch"],
        ("", "events"): ["list", "watch"],
        ("batch", "jobs"): ["get", "list", "watch", "delete"],
        ("rbac.authorization.k8s.io", "roles"): ["create"],
        ("rbac.authorization.k8s.io", "rolebindings"): ["create"],
        ("coordination.k8s.io", "leases"): ["create"],
        ("coordination.k8s.io", "leases:poiesis-tctl"): ["get", "update"],
    }


def test_only_the_api_and_the_controller_have_rights():
    manifests = render(*EVERYTHING)
    assert names(manifests, "Role") == names(manifests, "RoleBinding") == ["poiesis-api", "poiesis-tctl"]
    for name in names(manifests, "RoleBinding"):
        binding = one(manifests, "RoleBinding", name)
        assert binding["roleRef"]["name"] == name
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "tes"}]


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
    assert {name for name, mounted in found.items() if mounted} == {
        "Deployment/poiesis-api",
        "Deployment/poiesis-tctl",
    }


def test_no_secret_value_is_in_a_config_map():
    done = template(*INLINE_KEYS)
    manifests = [document for document in yaml.safe_load_all(done.stdout) if document]
    secret_values = {
        value for item in manifests if item["kind"] == "Secret" for value in item["stringData"].values()
    }
    passwords = {found for value in secret_values for found in re.findall(r"//\w+:(\w+)@", value)}
    assert len(passwords) == 3
    elsewhere = yaml.safe_dump([item for item in manifests if item["kind"] != "Secret"])
    assert [value for value in secret_values | passwords if value in elsewhere] == []


def test_no_slow_probe_cuts_the_embedded_database_off():
    manifests = render()
    (container,) = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]["template"]["spec"]["containers"]
    once_started = [container[name] for name in ("readinessProbe", "livenessProbe")]
    assert [probe.get("tcpSocket") for probe in once_started] == [{"port": "postgres"}] * 2
    assert one(manifests, "Service", "poiesis-postgres")["spec"]["publishNotReadyAddresses"] is True


def test_the_embedded_database_comes_with_its_secrets_and_an_ordinary_job():
    manifests = render()
    assert names(manifests, "StatefulSet") == ["poiesis-postgres"]
    postgres = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]
    assert (
        postgres["template"]["spec"]["securityContext"].items() >= {"runAsUser": 999, "fsGroup": 999}.items()
    )
    assert postgres["volumeClaimTemplates"][0]["spec"]["resources"] == {"requests": {"storage": "8Gi"}}
    made = one(manifests, "Secret", "poiesis-postgres")["stringData"]
    assert sorted(made) == ["api-dsn", "migrations-dsn", "password"]
    assert re.fullmatch(
        r"postgresql://poiesis_api:\w{32}@poiesis-postgres:5432/poiesis\?sslmode=verify-full", made["api-dsn"]
    )
    job = one(manifests, "Job", "poiesis-migrations-1")
    assert "annotations" not in job["metadata"]


def test_task_pods_can_mount_nothing_but_the_recorders_dsn():
    manifests = render()
    assert config(manifests)["recorderSecret"] == "poiesis-recorder"
    assert list(one(manifests, "Secret", "poiesis-recorder")["stringData"]) == ["recorder-dsn"]


def test_passwords_survive_an_uninstall_as_the_data_does():
    for name in ("poiesis-postgres", "poiesis-recorder", "poiesis-postgres-tls"):
        annotations = one(render(), "Secret", name)["metadata"]["annotations"]
        assert annotations == {"helm.sh/resource-policy": "keep"}


CA_USERS = (("Deployment", "poiesis-api"), ("Deployment", "poiesis-tctl"))


def test_the_embedded_database_accepts_tls_with_a_password_only():
    manifests = render()
    rules = one(manifests, "ConfigMap", "poiesis-postgres")["data"]["pg_hba.conf"].splitlines()
    assert rules == ["local all all trust", "hostssl all all all scram-sha-256"]
    (container,) = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]["template"]["spec"]["containers"]
    assert {"ssl=on", "hba_file=/etc/poiesis-postgres/pg_hba.conf"} <= set(container["args"])


def test_parameters_cannot_switch_tls_off():
    manifests = render("postgresql.parameters.ssl=off", "postgresql.parameters.work_mem=8MB")
    (container,) = one(manifests, "StatefulSet", "poiesis-postgres")["spec"]["template"]["spec"]["containers"]
    assert {"ssl=on", "work_mem=8MB"} <= set(container["args"])
    assert "ssl=off" not in container["args"]


def test_the_certificate_is_for_the_name_in_the_dsns():
    made = one(render(), "Secret", "poiesis-postgres-tls")["stringData"]
    certificate, authority = (
        x509.load_pem_x509_certificate(made[key].encode()) for key in ("tls.crt", "ca.crt")
    )
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName)[:1] == ["poiesis-postgres"]
    assert "PRIVATE KEY" not in made["ca.crt"]


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
    ("values", "job", "secret"),
    [
        ((), "poiesis-migrations-1", ("poiesis-postgres-tls", "ca.crt")),
        (("postgresql.tlsSecret=mine",), "poiesis-migrations-1", ("mine", "ca.crt")),
        (
            (*EXTERNAL, "postgresql.caSecret.name=pg-ca", "postgresql.caSecret.key=root.pem"),
            "poiesis-migrations",
            ("pg-ca", "root.pem"),
        ),
    ],
)
def test_every_client_of_postgres_verifies_its_certificate(values, job, secret):
    manifests = render(*values)
    for kind, name in (*CA_USERS, ("Job", job)):
        assert ca_of(one(manifests, kind, name)["spec"]["template"]["spec"]) == secret, name
    assert config(manifests)["postgresCaSecret"] == {"name": secret[0], "key": secret[1]}


def test_an_external_database_with_a_public_certificate_needs_no_ca_secret():
    manifests = render(*EXTERNAL)
    for kind, name in (*CA_USERS, ("Job", "poiesis-migrations")):
        pod = one(manifests, kind, name)["spec"]["template"]["spec"]
        assert "PGSSLROOTCERT" not in environment(pod), name
    assert "postgresCaSecret" not in config(manifests)


def test_a_certificate_of_ones_own_replaces_the_charts():
    assert "poiesis-postgres-tls" not in names(render("postgresql.tlsSecret=mine"), "Secret")


def test_an_external_database_is_migrated_by_a_hook_with_the_dsns_of_the_given_secret():
    manifests = render(*EXTERNAL)
    assert names(manifests, "StatefulSet") == names(manifests, "Secret") == []
    job = one(manifests, "Job", "poiesis-migrations")
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
    assert config(manifests)["recorderSecret"] == "my-postgres"
    # A hook runs before the release's own objects exist.
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_the_recorders_dsn_can_come_from_a_secret_of_its_own():
    manifests = render(*EXTERNAL, "postgresql.existingRecorderSecret=my-recorder")
    assert config(manifests)["recorderSecret"] == "my-recorder"
    job = one(manifests, "Job", "poiesis-migrations")
    source = environment(job["spec"]["template"]["spec"])["POIESIS_RECORDER_DSN"]
    assert source == {"secretKeyRef": {"name": "my-recorder", "key": "recorder-dsn"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("postgresql.embedded=false",),
            "postgresql.existingSecret is empty: with postgresql.embedded=false it must name",
        ),
        (("storage.s3.accessKey=x",), "storage.s3.accessKey and storage.s3.secretKey belong together"),
        (
            ("storage.s3.existingSecret=s", *INLINE_KEYS),
            "storage.s3.accessKey and storage.s3.secretKey must be empty",
        ),
        (("backendParameters.tolerations={spot:Never}",), "'/backendParameters/tolerations/0'"),
        (("backendParameters.gpus=1",), "gpus"),
        (("volume.type=nfs",), "'/volume/type': value must be one of 'pvc', 'ephemeral', 'emptyDir'"),
        (("queue.kueueQueueName=lq",), "queue.kueueQueueName needs volume.type ephemeral or emptyDir"),
        (("queue.maxActiveTask=1",), "'/queue': additional properties 'maxActiveTask' not allowed"),
        (("queue.maxActiveTasks=0",), "'/queue/maxActiveTasks': minimum: got 0, want 1"),
        (("executors.onExecutorError=retry",), "'/executors/onExecutorError': value must be one of"),
        (("executors.defaultResources.memory=2 GiB",), "'/executors/defaultResources/memory'"),
        (("api.replicas=0",), "'/api/replicas': minimum: got 0, want 1"),
        (
            ("tctl.thresholds.imagePullSeconds=soon",),
            "'/tctl/thresholds/imagePullSeconds': got string, want integer",
        ),
        (("tctl.podMonitor.interval=often",), "'/tctl/podMonitor/interval'"),
        (
            ("filers[0].name=x", "filers[0].inputs.image=y"),
            "'/filers/0/inputs': missing properties 'schemes', 'command'",
        ),
        (("storage.s3.endpoint=minio:9000",), "'/storage/s3/endpoint'"),
        (("storage.s3.webIdentity.stsEndpoint=sts",), "'/storage/s3/webIdentity/stsEndpoint'"),
        (("storage.s3.webIdentity.audience=",), "'/storage/s3/webIdentity/audience'"),
        (("storage.s3.credentials[0].name=a",), "'/storage/s3/credentials/0': missing property 'urls'"),
        ((*CREDENTIALS, "storage.s3.credentials[0].name=Lab_A"), "'/storage/s3/credentials/0/name'"),
        ((*CREDENTIALS, "storage.s3.credentials[0].urls={https://b}"), "'/storage/s3/credentials/0/urls/0'"),
        ((*CREDENTIALS, "storage.s3.credentials[0].groups=[]"), "'/storage/s3/credentials/0/groups'"),
        ((*CREDENTIALS, "storage.s3.credentials[0].secret=a"), "additional properties 'secret' not allowed"),
        ((*CREDENTIALS, "storage.s3.credentials[1].name=lab-a"), "two have the same name: lab-a"),
        (
            (*CREDENTIALS, "storage.s3.credentials[0].anonymous=true"),
            "storage.s3.credentials: lab-a: anonymous and secretName exclude each other",
        ),
        (("auth.mode=ldap",), "'/auth/mode': value must be one of 'none', 'basic', 'oidc'"),
        (("auth.mode=basic",), "auth.basic.existingSecret is empty: with auth.mode=basic it must name"),
        (("auth.mode=oidc",), "auth.oidc.issuer is empty: with auth.mode=oidc it must be"),
        (("auth.mode=oidc", "auth.oidc.issuer=https://a"), "auth.oidc.audiences is empty"),
        (("auth.oidc.issuer=sso.example.org",), "'/auth/oidc/issuer'"),
        (("auth.oidc.algorithms={none}",), "'/auth/oidc/algorithms/0': value must be one of"),
        (("auth.oidc.algorithms={HS256}",), "'/auth/oidc/algorithms/0': value must be one of"),
        ((*OIDC, "auth.oidc.introspection.existingSecret="), "introspection.existingSecret belong together"),
        (("userLimits.active.whenReached=drop",), "'/userLimits/active/whenReached': value must be one of"),
        (("userLimits.cpuCores=-1",), "'/userLimits/cpuCores'"),
        (("executors.maxResources.cpuCores=0",), "'/executors/maxResources/cpuCores'"),
        (("limits.taskObjectBytes=2000000",), "'/limits/taskObjectBytes'"),
        (("api.allowedOrigins={https://a.example/}",), "'/api/allowedOrigins/0'"),
        (("api.allowedOrigins={*}",), "'/api/allowedOrigins/0'"),
        (("images.pullPolicy=Sometimes",), "'/images/pullPolicy': value must be one of"),
        (("storage.s3.outputKeys=encoded",), "'/storage/s3/outputKeys': value must be one of"),
        (("rclone.schemes={sftp}",), "rclone.existingSecret is empty: with rclone.schemes it must name"),
        (("rclone.existingSecret=s",), "rclone.schemes is empty: with rclone.existingSecret it must name"),
        (("sharedVolumes[0].prefix=/a",), "'/sharedVolumes/0': missing property 'volume'"),
        (("sharedVolumes[0].prefix=a", "sharedVolumes[0].volume.nfs.path=/"), "'/sharedVolumes/0/prefix'"),
    ],
)
def test_a_bad_value_is_refused_by_name(values, message):
    assert message in refusal(*values)


def test_inline_storage_keys_become_a_secret():
    manifests = render(*INLINE_KEYS)
    assert one(manifests, "Secret", "poiesis-storage")["stringData"] == {
        "AWS_ACCESS_KEY_ID": "inline-access-key",
        "AWS_SECRET_ACCESS_KEY": "inline-secret-key",
    }
    assert config(manifests)["storage"] == {
        "secretName": "poiesis-storage",
        "addressingStyle": "auto",
        "outputKeys": "literal",
    }


def test_storage_of_ones_own():
    manifests = render(
        *("storage.s3.endpoint=https://s3.example.org", "storage.s3.existingSecret=keys"),
        *("storage.s3.region=eu-central-1", "storage.s3.addressingStyle=path", "storage.s3.caSecret.name=ca"),
        *("storage.http.allow={10.20.0.0/16,files.example.org}", "storage.http.deny={131.1.0.0/16}"),
        "storage.s3.outputKeys=decoded",
    )
    assert names(manifests, "Secret") == ["poiesis-postgres", "poiesis-postgres-tls", "poiesis-recorder"]
    assert config(manifests)["storage"] == {
        "secretName": "keys",
        "endpoint": "https://s3.example.org",
        "region": "eu-central-1",
        "addressingStyle": "path",
        "caSecret": {"name": "ca", "key": "ca.crt"},
        "outputKeys": "decoded",
        "httpAllow": ["10.20.0.0/16", "files.example.org"],
        "httpDeny": ["131.1.0.0/16"],
    }


def test_a_role_by_the_pods_own_token():
    role = {"roleArn": ROLE, "audience": "sts.amazonaws.com"}
    assert config(render(WEB_IDENTITY[0]))["storage"]["webIdentity"] == role
    sts = "https://sts.example.org"
    assert config(render(*WEB_IDENTITY))["storage"]["webIdentity"] == {**role, "stsEndpoint": sts}


def test_credentials_of_some_buckets_and_users_are_told_as_far_as_they_go():
    manifests = render(*CREDENTIALS)
    assert config(manifests)["storage"]["credentials"] == [
        {
            "name": "lab-a",
            "urls": ["s3://lab-a", "s3://shared/a/"],
            "secretName": "lab-a-keys",
            "users": ["alice"],
            "groups": ["lab-a"],
        },
        {
            "name": "public",
            "urls": ["s3://public"],
            "anonymous": True,
            "endpoint": "https://s3.example.org",
            "region": "eu-1",
            "addressingStyle": "virtual",
            "requesterPays": False,
            "caSecret": {"name": "public-ca", "key": "ca.crt"},
        },
    ]
    assert "lab-a-keys" not in yaml.safe_dump([item for item in manifests if item["kind"] != "ConfigMap"])


def images(manifests: list[Manifest]) -> set[str]:
    used = {container["image"] for _, pod in pods(manifests) for container in pod["containers"]}
    document = config(manifests)
    sides = [filer[side] for filer in document["filers"] for side in ("inputs", "outputs") if side in filer]
    return (
        used | {document["images"]["trec"], document["images"]["helper"]} | {side["image"] for side in sides}
    )


def test_images_are_of_one_registry_and_version():
    services = ("api", "tctl", "trec", "helper", "tif", "tof", "migrations")
    own = {f"registry.local/x/poiesis-{service}:9.9" for service in services}
    assert images(render("images.registry=registry.local/x/", "images.tag=9.9")) == own | {"postgres:17"}


def test_every_image_can_be_replaced_alone():
    services = ("api", "tctl", "trec", "helper", "tif", "tof", "migrations")
    values = [f"images.{service}=lab/{service}@sha256:0" for service in services]
    assert images(render(*values, "postgresql.image=lab/postgres:1")) == {
        *(f"lab/{service}@sha256:0" for service in services),
        "lab/postgres:1",
    }


def test_a_filer_of_ones_own_is_added():
    manifests = render(
        *("filers[0].name=drs", "filers[0].inputs.schemes={drs}", "filers[0].inputs.image=lab/drs:1"),
        *("filers[0].inputs.command={/drs}", "filers[0].env.HTTPS_PROXY=http://proxy:3128"),
    )
    assert config(manifests)["filers"] == [
        {
            "name": "drs",
            "inputs": {"schemes": ["drs"], "image": "lab/drs:1", "command": ["/drs"]},
            "env": {"HTTPS_PROXY": "http://proxy:3128"},
        }
    ]


@pytest.mark.parametrize(
    ("values", "streams"),
    [
        ((), None),
        (("storage.streaming=true",), ["python3", "-m", "poiesis_tif.stream"]),
        (("storage.streaming=true", "filers[0].inputs.image=lab/s3:1"), None),
    ],
    ids=["by default", "with storage.streaming", "a filer of the site's own"],
)
def test_the_charts_own_filer_streams_where_that_is_switched_on(values, streams):
    filer = ("filers[0].name=default", "filers[0].inputs.schemes={s3}", "filers[0].inputs.command={a}")
    (default,) = config(render(*filer, *values))["filers"]
    assert default["inputs"].get("streamCommand") == streams


def test_filers_of_rclone_and_of_shared_volumes_are_there_where_they_are_configured():
    claim = "sharedVolumes[0].volume.persistentVolumeClaim.claimName=projects"
    manifests = render(
        *("rclone.schemes={gs,sftp}", "rclone.existingSecret=remotes", "rclone.env.NO_PROXY=local"),
        *("sharedVolumes[0].prefix=/nfs/projects", claim, "sharedVolumes[0].subPath="),
        *("images.registry=lab", "images.tag=9.1"),
    )

    def side(name: str, *schemes: str) -> Manifest:
        command = ["python3", "-m", f"poiesis_{name}"]
        return {"schemes": list(schemes), "image": f"lab/poiesis-{name}:9.1", "command": command}

    rclone, file = side("rclone", "gs", "sftp"), side("file", "file")
    assert [filer["name"] for filer in config(render())["filers"]] == ["default"]
    assert config(manifests)["filers"][1:] == [
        {
            "name": "rclone",
            "inputs": rclone,
            "outputs": rclone,
            "env": {"NO_PROXY": "local"},
            "objectStorage": False,
            "secretName": "remotes",
        },
        {
            "name": "file",
            "inputs": file,
            "outputs": file,
            "objectStorage": False,
            "sharedVolumes": [
                {"prefix": "/nfs/projects", "volume": {"persistentVolumeClaim": {"claimName": "projects"}}}
            ],
        },
    ]


def test_numbers_given_as_quantities_become_text():
    document = config(render("executors.defaultResources.cpu=2", "resources.trec.limits.cpu=0.5"))
    assert document["executors"]["defaultResources"] == {"cpu": "2", "memory": "2Gi"}
    assert document["resources"]["trec"]["limits"] == {"cpu": "0.5", "memory": "128Mi"}


def test_values_reach_the_configuration_under_the_names_the_api_knows():
    document = config(
        render(
            *("volume.type=ephemeral", "volume.storageClass=fast", "volume.defaultSizeGb=2.5"),
            *("executors.onExecutorError=skip", "executors.logBytes=1024", "executors.imagePullPolicy=Never"),
            *(
                "executors.securityContext.runAsUser=1000",
                "executors.rootDiskGb=20",
                "executors.maxResources.ramGb=1.5",
                "executors.maxResources.gpuCount=0",
                r"executors.extendedResources.example\.org/fuse=1",
                "ttlSecondsAfterFinished=5",
            ),
            *("terminationGracePeriodSeconds=7", "queue.maxActiveTasks=3", "queue.giveUpSeconds=60"),
            *("queue.kueueQueueName=lq", "pod.priorityClassName=low", "pod.activeDeadlineSeconds=99"),
            *(
                "api.bodyBytes=1000",
                "api.bodySeconds=0.5",
                "api.incomingBytes=3000",
                "api.outgoingBytes=4000",
            ),
            *("api.pageBytes=5000", "api.sendSeconds=0.7", "api.headSeconds=2", "api.keepAliveSeconds=9.5"),
            "api.maxConnections=33",
            *("limits.executors=7", "limits.taskObjectBytes=300000"),
            *("serviceInfo.contactUrl=https://example.org", "filerRetryAttempts=0"),
        )
    )
    assert document["volume"] == {
        "type": "ephemeral",
        "storageClass": "fast",
        "defaultSizeGb": 2.5,
        "accessMode": "ReadWriteOnce",
    }
    assert document["executors"] == {
        "defaultResources": {"cpu": "1", "memory": "2Gi"},
        "extendedResources": {"example.org/fuse": "1"},
        "securityContext": {"runAsUser": 1000},
        "imagePullPolicy": "Never",
        "maxResources": {"cpuCores": 256, "ramGb": 1.5, "diskGb": 102400, "gpuCount": 0},
        "rootDiskGb": 20,
        "logBytes": 1024,
        "onError": "skip",
    }
    assert document["queue"] == {
        "maxActiveTasks": 3,
        "maxSubmissions": 8,
        "pollSeconds": 5,
        "claimSeconds": 60,
        "stalledSeconds": 60,
        "giveUpSeconds": 60,
        "kueueQueueName": "lq",
    }
    assert (document["pod"]["priorityClassName"], document["pod"]["activeDeadlineSeconds"]) == ("low", 99)
    assert (document["ttlSecondsAfterFinished"], document["terminationGracePeriodSeconds"]) == (5, 7)
    assert (document["limits"], document["filerRetryAttempts"]) == (
        {
            "bodyBytes": 1000,
            "bodySeconds": 0.5,
            "incomingBytes": 3000,
            "outgoingBytes": 4000,
            "pageBytes": 5000,
            "sendSeconds": 0.7,
            "executors": 7,
            "taskObjectBytes": 300000,
        },
        0,
    )
    http = document["http"]
    assert (http["headSeconds"], http["keepAliveSeconds"], http["maxConnections"]) == (2, 9.5, 33)
    assert document["serviceInfo"]["contactUrl"] == "https://example.org"
    assert document["serviceInfo"]["version"] == "0.2.0"


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


def test_without_a_mode_everybody_is_one_user_without_limits():
    manifests = render()
    assert identity_files(manifests) == {}
    assert config(manifests)["auth"] == {
        "mode": "none",
        "administrators": {"users": [], "groups": []},
        "sharing": {"tag": "", "groups": []},
    }
    assert config(manifests)["userLimits"] == {}


def test_with_users_each_has_limits_by_default():
    assert config(render(*BASIC, "queue.maxActiveTasks=7"))["userLimits"] == {
        "active": {"tasks": 3, "whenReached": "queue"},
        "queuedTasks": 10000,
        "requests": {"perSecond": 200, "burst": 2000},
    }
    without = ("userLimits.active.tasks=0", "userLimits.queuedTasks=0", "userLimits.requests.perSecond=0")
    assert config(render(*BASIC, *without))["userLimits"] == {}


def test_the_migrations_are_told_how_many_connections_the_services_take():
    job = dict(pods(render("api.replicas=3", "postgresql.recorderConnections=9")))["Job/poiesis-migrations-1"]
    env = {one["name"]: one.get("value") for one in job["containers"][0]["env"]}
    assert env["POIESIS_RECORDER_CONNECTIONS"] == "9"
    assert env["POIESIS_SERVICE_CONNECTIONS"] == str(4 * 10 + 3 * 8)


def test_users_are_a_file_of_the_given_secret():
    manifests = render(*BASIC, "auth.basic.key=auth")
    path = "/etc/poiesis-identity/users/auth"
    assert identity_files(manifests) == {path: ("my-users", "auth")}
    assert config(manifests)["auth"]["basic"] == {"usersFile": path}


def test_the_issuers_secrets_are_files():
    manifests = render(*OIDC)
    directory = "/etc/poiesis-identity"
    assert identity_files(manifests) == {
        f"{directory}/ca/ca.crt": ("my-ca", "ca.crt"),
        f"{directory}/introspection/client-secret": ("my-client", "client-secret"),
    }
    oidc = config(manifests)["auth"]["oidc"]
    assert oidc["caFile"] == f"{directory}/ca/ca.crt"
    assert oidc["introspection"] == {
        "clientId": "tes-server",
        "clientSecretFile": f"{directory}/introspection/client-secret",
        "audienceRequired": True,
        "cacheSeconds": 60,
        "refusedSeconds": 10,
        "maxRequests": 8,
        "maxCached": 10000,
    }
    assert (oidc["audiences"], oidc["scopes"], oidc["staleSeconds"]) == (["tes"], ["tes"], 0.5)


def test_limits_are_told_where_there_are_any():
    assert config(render(*USER_LIMITS))["userLimits"] == {
        "active": {"tasks": 5, "whenReached": "refuse"},
        "queuedTasks": 6,
        "requests": {"perSecond": 0.5, "burst": 2000},
        "cpuCores": 7.5,
        "ramGb": 8,
        "diskGb": 9,
        "gpus": 2,
    }


@pytest.mark.skipif(importlib.util.find_spec("poiesis_api") is None, reason="the api is not on the path")
@pytest.mark.parametrize(
    "values",
    [
        *((), EVERYTHING, EXTERNAL, BASIC, OIDC, OIDC[:3], USER_LIMITS, CREDENTIALS, WEB_IDENTITY),
        ("executors.defaultResources.cpu=2",),
        ("api.allowedOrigins={https://a.example,http://localhost:3000,http://[::1]:3000}",),
    ],
)
def test_the_api_accepts_the_configuration(values, tmp_path):
    from poiesis_api.config import Document

    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(render(*values))))
    document = Document.load(path)
    assert document.http.port == 8000
    assert document.images.trec.endswith("poiesis-trec:0.2.0")


@pytest.mark.skipif(importlib.util.find_spec("poiesis_api") is None, reason="the api is not on the path")
def test_the_chart_has_a_value_for_all_that_the_api_can_be_told():
    from poiesis_api.config import (
        Basic,
        Document,
        Introspection,
        Oidc,
        Section,
        StorageCredentials,
        UserLimits,
        WebIdentity,
    )

    def missing(section: type[Section], document: dict[str, Any], where: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            key = field.alias or name
            if key not in document:
                yield f"{where}{key}"
            elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                yield from missing(field.annotation, document[key], f"{where}{key}.")

    told = config(
        render(
            *EVERYTHING,
            *USER_LIMITS,
            *OIDC,
            *CREDENTIALS,
            *("storage.s3.endpoint=https://s3", "storage.s3.region=r", "storage.s3.caSecret.name=ca"),
            *WEB_IDENTITY,
            *("volume.storageClass=fast", "executors.imagePullPolicy=Never", "pod.priorityClassName=low"),
            *("pod.runtimeClassName=kata", "pod.activeDeadlineSeconds=9", "queue.giveUpSeconds=9"),
            *("queue.kueueQueueName=lq", "queue.kueuePriorityClass=urgent", "volume.type=ephemeral"),
            *("serviceInfo.contactUrl=https://c", "serviceInfo.createdAt=x"),
            *("serviceInfo.updatedAt=x", "serviceInfo.environment=x"),
            *("storage.http.allow={x}", "storage.http.deny={y}"),
        )
    )
    # Of `auth` a mode's own section alone is told.
    assert list(missing(Document, told, "")) == ["auth.basic"]
    assert list(missing(Oidc, told["auth"]["oidc"], "")) == []
    assert list(missing(Introspection, told["auth"]["oidc"]["introspection"], "")) == []
    assert list(missing(UserLimits, told["userLimits"], "")) == []
    lab, public = told["storage"]["credentials"]
    assert list(missing(StorageCredentials, lab | public, "")) == []
    assert list(missing(WebIdentity, told["storage"]["webIdentity"], "")) == []
    assert list(missing(Basic, config(render(*BASIC))["auth"]["basic"], "")) == []


@pytest.mark.skipif(
    importlib.util.find_spec("poiesis_tctl") is None, reason="the controller is not on the path"
)
def test_the_controllers_defaults_are_the_charts(monkeypatch):
    from poiesis_tctl.config import Config

    pod = dict(pods(render()))["Deployment/poiesis-tctl"]
    set_by_chart = {name: value for name, value in environment(pod).items() if isinstance(value, str)}
    needed = {"POIESIS_DSN": "postgresql://x", "POD_NAME": "a", "POD_NAMESPACE": "b"}
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    defaults = Config.from_env()
    for name, value in set_by_chart.items():
        monkeypatch.setenv(name, value)
    assert Config.from_env() == defaults


def test_the_controllers_metrics_are_scraped_where_that_is_asked_for():
    manifests = render(
        "tctl.podMonitor.enabled=true",
        "tctl.podMonitor.interval=1m",
        "tctl.podMonitor.labels.release=prometheus",
    )
    monitor = one(manifests, "PodMonitor", "poiesis-tctl")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    template = one(manifests, "Deployment", "poiesis-tctl")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["ports"] == [{"name": "health", "containerPort": 8080}]
    selector = monitor["spec"].pop("selector")["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert selector["app.kubernetes.io/component"] == "tctl"
    assert monitor["spec"] == {
        "podMetricsEndpoints": [{"port": "health", "path": "/metrics", "interval": "1m"}]
    }


def test_without_that_the_chart_needs_no_prometheus_operator():
    assert names(render(*EVERYTHING), "PodMonitor") == []


def test_a_changed_configuration_restarts_the_api():
    def checksum(*values: str) -> str:
        template = one(render(*values), "Deployment", "poiesis-api")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("queue.maxActiveTasks=5")


def test_no_request_is_lost_in_a_rollout():
    api = one(render(), "Deployment", "poiesis-api")["spec"]
    assert api["replicas"] == 2
    assert api["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    container = api["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    drain = config(render("api.drainSeconds=7"))["http"]["drainSeconds"]
    assert drain == 7 < api["template"]["spec"]["terminationGracePeriodSeconds"]
    assert names(render(), "PodDisruptionBudget") == ["poiesis-api", "poiesis-tctl"]


def test_pages_that_may_create_tasks_are_told():
    given = config(render("api.allowedOrigins={https://portal.example.org}"))
    assert given["http"]["allowedOrigins"] == ["https://portal.example.org"]


def test_one_replica_has_no_disruption_budget_that_would_block_a_drain():
    assert names(render("api.replicas=1", "tctl.replicas=1"), "PodDisruptionBudget") == []


def test_pull_secrets_reach_every_pod():
    manifests = render("images.pullSecrets={mine}", *EVERYTHING)
    assert all(pod["imagePullSecrets"] == [{"name": "mine"}] for _, pod in pods(manifests))
    assert config(manifests)["images"]["pullSecrets"] == ["mine"]


def test_a_release_of_another_name_and_a_long_one():
    assert "tes-poiesis-api" in names(render(release="tes"), "Deployment")
    long = render(release="a-name-of-53-characters-which-is-as-long-as-helm-lets")
    assert all(len(item["metadata"]["name"]) <= 63 for item in long)


def test_network_policies_let_services_to_postgres_and_tasks_to_everything_but_metadata():
    manifests = render(*EVERYTHING)
    tasks = one(manifests, "NetworkPolicy", "poiesis-tasks")["spec"]
    assert tasks["ingress"] == []
    assert tasks["egress"] == [
        {
            "to": [
                {"namespaceSelector": {}},
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128"]}},
            ]
        }
    ]
    postgres = one(manifests, "NetworkPolicy", "poiesis-postgres")["spec"]
    selectors = [source["podSelector"] for source in postgres["ingress"][0]["from"]]
    assert selectors[0] == {"matchExpressions": [{"key": "poiesis.io/task", "operator": "Exists"}]}
    components = [selector["matchLabels"]["app.kubernetes.io/component"] for selector in selectors[1:]]
    assert components == ["api", "tctl", "migrations"]
    labels = {
        item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for item in manifests
        if item["kind"] in ("Deployment", "Job")
    }
    assert labels == {"api", "tctl", "migrations"}


def test_values_are_all_documented_in_the_schema():
    """And the other way round: values.yaml shows every key that the schema knows."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def differences(node: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[str]:
        known = node.get("properties", {})
        yield from (f"{where}{key}" for key in known.keys() ^ value.keys())
        for key in known.keys() & value.keys():
            if known[key].get("properties") and isinstance(value[key], dict):
                yield from differences(known[key], value[key], f"{where}{key}.")

    assert set(differences(schema, values, "")) == {"global"}
