import json

import pytest

from poiesis_api.config import Config, ConfigError, Document, UserLimits

ENV = {"POIESIS_DSN": "postgresql://user:secret@host/db", "POD_NAMESPACE": "tasks"}
FILER = {"name": "a", "inputs": {"schemes": ["s3"], "image": "tif", "command": ["tif"]}}
GATEWAY = {"url": "https://poiesis-gateway.tes.svc:8443", "caFile": "/etc/poiesis-gateway/ca.crt"}
SMALLEST = {"images": {"trec": "trec", "helper": "helper", "rclone": "r:1"}, "gateway": GATEWAY}
OIDC = {"issuer": "https://sso.example.org", "audiences": ["tes"]}


def shared(*prefixes):
    return {"sharedVolumes": [{"prefix": prefix, "volume": {"nfs": {}}} for prefix in prefixes]}


def s3_credentials(*entries, **fields):
    return {"storage": {"s3": {"credentials": [{"name": "a", "urls": ["s3://b"], **fields}, *entries]}}}


def document(**changes):
    return Document.model_validate(SMALLEST | changes)


@pytest.fixture
def env(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALLEST))
    return ENV | {"POIESIS_CONFIG": str(path)}


def test_smallest_document_is_enough(env):
    config = Config.from_env(env)
    assert (config.namespace, config.document.queue.max_active_tasks) == ("tasks", 1000)


def test_dsn_is_not_shown(env):
    assert "secret@" not in repr(Config.from_env(env))


@pytest.mark.parametrize("name", ENV)
def test_missing_variable_is_named(env, name):
    with pytest.raises(ConfigError, match=name):
        Config.from_env({key: value for key, value in env.items() if key != name})


def test_rejected_dsn_of_other_database_is_hidden(env):
    with pytest.raises(ConfigError) as raised:
        Config.from_env(env | {"POIESIS_DSN": "mysql://user:secret@host/db"})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "images.trec is required"),
        ({"queue": {"maxActiveTasks": 0}}, "queue.maxActiveTasks must be greater than 0, got '0'"),
        ({"queue": {"maxActiveTasks": 1.5}}, "queue.maxActiveTasks must be a valid integer, got '1.5'"),
        ({"queue": {"maxActive": 1}}, "queue.maxActive: unknown key"),
        ({"queue": {"max_active_tasks": 1}}, "queue.max_active_tasks: unknown key"),
        ({"queue": {"pollSeconds": "soon"}}, "queue.pollSeconds must be a valid number, got 'soon'"),
        ({"queue": {"pollSeconds": "0.0"}}, "queue.pollSeconds must be greater than 0"),
        (
            {"queue": {"kueueQueueName": "lq"}},
            "volume.type must be ephemeral or emptyDir if queue.kueueQueueName is set, got pvc",
        ),
        *(
            (
                {"executors": {"securityContext": {"capabilities": {"add": [name]}}}},
                "executors.securityContext.capabilities.add must not contain NET_RAW",
            )
            for name in ("NET_RAW", "CAP_NET_RAW")
        ),
        *(
            (
                {"executors": {"profile": "restricted", "securityContext": context}},
                f"executors.securityContext.{words}",
            )
            for context, words in (
                ({"runAsNonRoot": False}, "runAsNonRoot must be true with executors.profile restricted"),
                ({"runAsUser": 0}, "runAsUser must be a user other than 0"),
                ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation must be false"),
                ({"privileged": True}, "privileged must be false"),
                ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities.add must contain at most NET_BIND"),
                ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile.type must be RuntimeDefault"),
                ({"appArmorProfile": {"type": "Unconfined"}}, "appArmorProfile.type must be RuntimeDefault"),
                ({"seLinuxOptions": {"type": "spc_t"}}, "seLinuxOptions.type must be container_t"),
                ({"seLinuxOptions": {"user": "root"}}, "seLinuxOptions.user must be unset"),
                ({"procMount": "Unmasked"}, "procMount must be Default"),
            )
        ),
        ({"executors": {"profile": "strict"}}, "executors.profile must be 'baseline' or 'restricted'"),
        (
            {
                "executors": {"profile": "restricted"},
                "storage": {"sharedVolumes": [{"prefix": "/a", "volume": {"hostPath": {"path": "/"}}}]},
            },
            "executors.profile must be baseline for a shared volume of type hostPath (prefix '/a')",
        ),
        *(
            ({"executors": {"images": [image]}}, words)
            for image, words in (
                ("quay.io", "'quay.io' is not a prefix of image names: a registry must end with '/'"),
                ("https://quay.io/", "must not have a scheme"),
                ("quay.io/a:1/", "a tag or digest must not be followed by '/'"),
                ("Quay/a b", "spaces"),
                ({"value": "a", "users": []}, "executors.images.0.users"),
                ({"prefix": "a"}, "executors.images.0.value is required"),
            )
        ),
        ({"executors": {"images": []}}, "executors.images"),
        (
            {"backendParameters": {"wallTimeSeconds": 604801}},
            "backendParameters.wallTimeSeconds must be at most pod.activeDeadlineSeconds (604800), got",
        ),
        (
            {"executors": {"securityContext": {"privileged": True}}},
            "executors.securityContext.privileged must be false",
        ),
        ({"executors": {"defaultResources": {"cpu": "1", "memory": "2 GiB"}}}, "defaultResources.memory"),
        *(
            (
                {"executors": {"cpuLimit": limit}},
                f"cpuLimit must be request, none or a factor between 1 and 1000, got {str(limit)!r}",
            )
            for limit in ("limit", 0.5, "0.5", 1001, "1m", True)
        ),
        ({"volume": {"type": "nfs"}}, "volume.type must be 'pvc', 'ephemeral' or 'emptyDir', got 'nfs'"),
        ({"filers": []}, "filers: List must have at least 1 item after validation, not 0"),
        ({"filers": [FILER] * 2}, "filers: names must be unique, got 'a' 2 times"),
        (
            {"filers": [FILER | {"name": "file"}], "storage": shared("/a")},
            "filers: names must be unique, got 'file' 2 times",
        ),
        ({"filers": [FILER | shared("/a", "/a/b")]}, "filers.0.sharedVolumes: prefixes must not overlap"),
        (
            {"storage": shared("/a", "/a")},
            "storage.sharedVolumes: prefixes must not overlap, but '/a' lies in",
        ),
        (
            {"storage": shared("/a/../b")},
            "sharedVolumes: prefix must have no segment '.' or '..', got '/a/../b'",
        ),
        ({"storage": shared("/")}, "storage.sharedVolumes.0.prefix"),
        ({"storage": shared("/a/")}, "storage.sharedVolumes.0.prefix"),
        (
            {"storage": {"rclone": {"schemes": ["gs"]}}},
            "storage.rclone.secretName must be set if schemes is not",
        ),
        (
            {"storage": {"rclone": {"secretName": "s"}}},
            "storage.rclone.schemes must not be empty if secretName",
        ),
        ({"ttlSecondsAfterFinished": "600"}, "ttlSecondsAfterFinished must be a valid integer, got '600'"),
        (s3_credentials(urls=[]), "storage.s3.credentials.0.urls"),
        (s3_credentials(name="A"), "storage.s3.credentials.0.name"),
        (s3_credentials(urls=["https://b"]), "storage.s3.credentials.0.urls.0"),
        (s3_credentials(groups=[]), "storage.s3.credentials.0.groups"),
        (s3_credentials({"name": "a", "urls": ["s3://c"]}), "storage.s3.credentials: names must be unique"),
        (
            s3_credentials(anonymous=True, secretName="s"),
            "storage.s3.credentials.0.anonymous must be false if secretName is set (got 's')",
        ),
        (
            {"backendParameters": {"gpuCount": 1}},
            "backendParameters.gpuResource must not be empty if gpuCount",
        ),
        ({"gateway": None}, "gateway is required with recorder.transport gateway"),
        (
            {"recorder": {"transport": "http"}},
            "recorder.transport must be 'gateway' or 'postgres', got 'http'",
        ),
        (
            {"gateway": GATEWAY | {"url": "http://poiesis-gateway.tes.svc:8443"}},
            "gateway.url",
        ),
        ({"auth": {"mode": "basic"}}, "auth.basic must be set with mode basic"),
        ({"auth": {"mode": "oidc"}}, "auth.oidc must be set with mode oidc"),
        ({"auth": {"mode": "oidc", "oidc": {"issuer": "https://a"}}}, "auth.oidc.audiences is required"),
    ],
)
def test_invalid_key_is_named_with_its_value(env, tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST | change))
    with pytest.raises(ConfigError) as raised:
        Config.from_env(env)
    assert message in str(raised.value)


def test_missing_file_is_named(env, tmp_path):
    with pytest.raises(ConfigError, match="none"):
        Config.from_env(env | {"POIESIS_CONFIG": str(tmp_path / "none")})


def test_file_that_is_not_json_is_named(env, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: the document: Invalid JSON"):
        Config.from_env(env)


def test_null_means_the_default(env, tmp_path):
    unset = {"queue": {"maxActiveTasks": None}, "filers": None, "auth": {"oidc": None}, "pod": None}
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST | unset))
    assert Config.from_env(env).document == document()


def test_numbers_may_be_text_as_helm_sets_fractions():
    given = document(queue={"pollSeconds": "0.5"}, executors={"rootDiskGb": "0"})
    assert (given.queue.poll_seconds, given.executors.root_disk_gb) == (0.5, 0)


def test_integers_may_have_a_zero_fraction():
    given = document(queue={"maxActiveTasks": 5.0}, executors={"logBytes": 1e6})
    assert (given.queue.max_active_tasks, given.executors.log_bytes) == (5, 1_000_000)


def test_quantities_may_be_numbers():
    resources = {"defaultResources": {"cpu": 0.5, "memory": 2147483648}, "extendedResources": {"a/b": 1}}
    executors = document(executors=resources).executors
    assert executors.default_resources.model_dump() == {"cpu": "0.5", "memory": "2147483648"}
    assert executors.extended_resources == {"a/b": "1"}


def test_cpu_limit_must_not_be_a_list():
    with pytest.raises(ValueError, match="must be request, none or a factor"):
        document(executors={"cpuLimit": []})


@pytest.mark.parametrize(
    ("given", "limit"), [(None, "none"), ("request", "request"), (1, 1), ("1.5", 1.5), (1000, 1000)]
)
def test_cpu_limit(given, limit):
    assert document(executors={"cpuLimit": given}).executors.cpu_limit == limit


def test_quantity_must_not_be_a_boolean():
    with pytest.raises(ValueError, match="string"):
        document(executors={"extendedResources": {"a/b": True}})


def test_first_filer_of_a_scheme_serves_it():
    side = {"schemes": ["s3", "drs"], "image": "b", "command": ["b"]}
    given = document(filers=[FILER, {"name": "b", "inputs": side}])
    assert {scheme: filer.name for scheme, filer in given.input_filers.items()} == {"s3": "a", "drs": "b"}
    assert given.output_filers == {}
    assert given.literal_filer is given.filers[0]


def test_filers_without_image_get_the_releases_own():
    given = document(images={**SMALLEST["images"], "tif": "tif:1", "tof": "tof:1"})
    (default,) = given.filers
    assert (default.inputs.image, default.outputs.image) == ("tif:1", "tof:1")
    assert document(filers=[FILER]).filers[0].inputs.image == "tif"


def test_filers_follow_a_copy_with_other_images():
    given = document()
    assert given.filers[0].inputs.image == "poiesis-tif"
    changed = given.model_copy(update={"images": given.images.model_copy(update={"tif": "tif:2"})})
    assert changed.filers[0].inputs.image == "tif:2"


STREAM = ["python3", "-m", "poiesis_tif.stream"]


@pytest.mark.parametrize(
    ("streaming", "inputs", "command"),
    [
        (False, {}, None),
        (True, {}, STREAM),
        (True, {"image": "own:1"}, None),
        (True, {"image": "own:1", "streamCommand": ["pour"]}, ["pour"]),
        (True, {"streamCommand": ["pour"]}, ["pour"]),
        (False, {"image": "own:1", "streamCommand": ["pour"]}, None),
    ],
)
def test_streaming_needs_a_command(streaming, inputs, command):
    side = {"schemes": ["s3"], "command": ["a"], **inputs}
    given = document(storage={"streaming": streaming}, filers=[{"name": "a", "inputs": side}])
    assert given.filers[0].inputs.stream_command == command


def test_rclone_is_a_filer_if_it_has_schemes():
    rclone = {"schemes": ["gs", "sftp"], "secretName": "remotes", "env": {"NO_PROXY": "local"}}
    _, filer = document(storage={"rclone": rclone}).filers
    assert (filer.name, filer.env, filer.secret_name) == ("rclone", {"NO_PROXY": "local"}, "remotes")
    assert filer.inputs == filer.outputs
    assert filer.inputs.model_dump(exclude_none=True) == {
        "schemes": ["gs", "sftp"],
        "image": "r:1",
        "command": ["python3", "-m", "poiesis_rclone"],
    }
    assert not filer.object_storage


def test_shared_volumes_have_a_filer_for_file_urls():
    given = document(storage=shared("/nfs"))
    assert [filer.name for filer in given.filers] == ["default", "file"]
    filer = given.filers[1]
    assert given.input_filers["file"] == given.output_filers["file"] == filer
    assert (filer.inputs.image, filer.inputs.command) == ("poiesis-file", ["python3", "-m", "poiesis_file"])
    assert [volume.prefix for volume in filer.shared_volumes] == ["/nfs"]
    assert not filer.object_storage


def test_without_accounts_users_have_no_limits():
    assert document().effective_user_limits == UserLimits()


def test_accounts_have_limits_by_default():
    limits = document(auth={"mode": "oidc", "oidc": OIDC}, queue={"maxActiveTasks": 7}).effective_user_limits
    assert (limits.active.tasks, limits.queued_tasks, limits.requests.per_second) == (3, 10_000, 200)
    assert limits.cpu_cores is None


def test_zero_switches_a_default_limit_off():
    zero = {"active": {"tasks": 0}, "queuedTasks": 0, "requests": {"perSecond": 0}, "gpus": 2}
    limits = document(auth={"mode": "oidc", "oidc": OIDC}, userLimits=zero).effective_user_limits
    assert limits == UserLimits.model_validate(zero)


@pytest.mark.parametrize(("given", "level"), [({}, "INFO"), ({"POIESIS_LOG_LEVEL": "debug"}, "DEBUG")])
def test_log_level_is_that_of_the_environment(env, given, level):
    assert Config.from_env(env | given).log_level == level


def test_unknown_log_level_is_rejected(env):
    with pytest.raises(ConfigError, match=r"POIESIS_LOG_LEVEL must be one of DEBUG, INFO, .* got 'LOUD'"):
        Config.from_env(env | {"POIESIS_LOG_LEVEL": "loud"})
