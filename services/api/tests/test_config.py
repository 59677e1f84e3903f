import json
from pathlib import Path

import pytest

from poiesis_api.config import Config, ConfigError, Document

ENV = {"POIESIS_DSN": "postgresql://user:secret@host/db", "POD_NAMESPACE": "tasks"}
SMALLEST = {
    "images": {"trec": "trec", "helper": "helper"},
    "filers": [{"name": "a", "inputs": {"schemes": ["s3"], "image": "tif", "command": ["tif"]}}],
    "recorderSecret": "postgres",
}


def shared(*prefixes):
    volumes = [{"prefix": prefix, "volume": {"nfs": {}}} for prefix in prefixes]
    return {"filers": [SMALLEST["filers"][0] | {"sharedVolumes": volumes}]}


@pytest.fixture
def env(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALLEST))
    return ENV | {"POIESIS_CONFIG": str(path)}


def test_the_smallest_document_is_enough(env):
    config = Config.from_env(env)
    assert (config.namespace, config.document.queue.max_active_tasks) == ("tasks", 1000)


def test_no_secret_is_shown(env):
    assert "secret@" not in repr(Config.from_env(env))


def test_the_example_names_every_key(config):
    def keys(value):
        return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None

    example = json.loads(config.model_dump_json(by_alias=True))
    given = json.loads((Path(__file__).parents[1] / "config.example.json").read_text())
    assert keys(given) == keys(example) | {"storage": keys(given)["storage"]}


@pytest.mark.parametrize("name", ENV)
def test_a_missing_variable_is_named(env, name):
    with pytest.raises(ConfigError, match=name):
        Config.from_env({key: value for key, value in env.items() if key != name})


def test_a_dsn_of_another_database_is_refused_without_showing_it(env):
    with pytest.raises(ConfigError) as raised:
        Config.from_env(env | {"POIESIS_DSN": "mysql://user:secret@host/db"})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": {}}, "images.trec"),
        ({"queue": {"maxActiveTasks": 0}}, "queue.maxActiveTasks"),
        ({"queue": {"maxActive": 1}}, "queue.maxActive"),
        *(
            (
                {"executors": {"securityContext": {"capabilities": {"add": [name]}}}},
                "executors.securityContext: .*NET_RAW",
            )
            for name in ("NET_RAW", "CAP_NET_RAW")
        ),
        ({"executors": {"securityContext": {"privileged": True}}}, "executors.securityContext: .*privileged"),
        ({"volume": {"type": "nfs"}}, "volume.type"),
        ({"filers": []}, "filers"),
        ({"filers": SMALLEST["filers"] * 2}, "two have the same name"),
        (shared("/a", "/a/b"), "/a/b lies in another one"),
        (shared("/a", "/a"), "/a lies in another one"),
        (shared("/a/../b"), "the prefix /a/../b has a segment '.' or '..'"),
        (shared("/"), "sharedVolumes.0.prefix"),
        (shared("/a/"), "sharedVolumes.0.prefix"),
        ({"ttlSecondsAfterFinished": "600"}, "ttlSecondsAfterFinished"),
        ({"storage": {"credentials": [{"name": "a", "urls": []}]}}, r"storage\.credentials\.0\.urls"),
        ({"storage": {"credentials": [{"name": "A", "urls": ["s3://b"]}]}}, r"storage\.credentials\.0\.name"),
        ({"storage": {"credentials": [{"name": "a", "urls": ["https://b"]}]}}, r"credentials\.0\.urls\.0"),
        ({"storage": {"credentials": [{"name": "a", "urls": ["s3://b"], "groups": []}]}}, "groups"),
        (
            {"storage": {"credentials": [{"name": "a", "urls": ["s3://b"]}] * 2}},
            "two have the same name: a, a",
        ),
        (
            {
                "storage": {
                    "credentials": [{"name": "a", "urls": ["s3://b"], "anonymous": True, "secretName": "s"}]
                }
            },
            "a: anonymous and secretName exclude each other",
        ),
    ],
)
def test_a_wrong_key_is_named(env, tmp_path, change, named):
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST | change))
    with pytest.raises(ConfigError, match=named):
        Config.from_env(env)


def test_a_file_that_is_missing_or_not_json_is_named(env, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        Config.from_env(env)
    with pytest.raises(ConfigError, match="none"):
        Config.from_env(env | {"POIESIS_CONFIG": str(tmp_path / "none")})


def test_the_first_filer_of_a_scheme_serves_it():
    side = {"schemes": ["s3", "drs"], "image": "b", "command": ["b"]}
    document = Document.model_validate(
        SMALLEST | {"filers": [*SMALLEST["filers"], {"name": "b", "inputs": side}]}
    )
    assert {scheme: filer.name for scheme, filer in document.input_filers.items()} == {"s3": "a", "drs": "b"}
    assert document.output_filers == {}
    assert document.literal_filer is document.filers[0]
