"""Which S3 credentials a task gets, by who creates it and what it names, as tables."""

import pytest

from poiesis_api.config import Document, StorageCredentials
from poiesis_api.grants import config_for, granted_credentials, needed_by
from poiesis_api.identity.caller import ANONYMOUS, Caller
from poiesis_models.tes import TesTaskRequest
from poiesis_models.worklist import InputItem, OutputItem

ALICE = Caller(name="alice", groups=("lab-a", "staff"))
BOB = Caller(name="bob", groups=("lab-b",))
ROOT = Caller(name="root", administrator=True)


def entry(name, *urls, **fields):
    return StorageCredentials(name=name, urls=list(urls), **fields)


ENTRIES = [
    entry("public", "s3://lab"),
    entry("alices", "s3://lab/a/", users=["alice", "carol"]),
    entry("lab-bs", "s3://lab/b/", "s3://lab-b", groups=["lab-b", "lab-c"]),
    entry("of-both", "s3://lab/both", users=["alice"], groups=["lab-b"]),
]


def task(inputs=(), outputs=()):
    return TesTaskRequest.model_validate(
        {
            "executors": [{"image": "busybox", "command": ["true"]}],
            "inputs": [{"path": f"/in/{number}", **one} for number, one in enumerate(inputs)],
            "outputs": [{"path": f"/out/{number}", **one} for number, one in enumerate(outputs)],
        }
    )


@pytest.mark.parametrize(
    ("url", "names"),
    [  # of alice, bob, root and of anybody where there are no users
        ("s3://lab/x", (["public"], ["public"], ["public"], ["public"])),
        ("s3://lab/a/x", (["alices"], ["public"], ["public"], ["public"])),
        ("s3://lab/b/x", (["public"], ["lab-bs"], ["public"], ["public"])),
        ("s3://lab/both", (["of-both"], ["of-both"], ["public"], ["public"])),
        ("s3://lab-b/x", ([], ["lab-bs"], [], [])),
        ("s3://elsewhere/x", ([], [], [], [])),
        ("https://lab/a/x?X-Amz-Signature=y", ([], [], [], [])),
    ],
)
def test_owner_gets_public_and_own_entries(url, names):
    read = task(inputs=[{"url": url, "type": "FILE"}])
    assert (
        tuple(granted_credentials(read, caller, ENTRIES) for caller in (ALICE, BOB, ROOT, ANONYMOUS)) == names
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "names"),
    [
        ([], [], []),
        ([{"content": "x", "url": "s3://lab/a"}], [], []),
        ([{"url": "s3://lab/x", "type": "FILE"}], [], ["public"]),
        ([{"url": "s3://lab"}], [], ["public", "alices", "of-both"]),
        ([{"url": "s3://lab", "type": "FILE"}], [], ["public", "alices", "of-both"]),
        ([{"url": "s3://lab/", "type": "DIRECTORY"}], [], ["public", "alices", "of-both"]),
        ([{"url": "s3://lab/a/x", "type": "FILE"}], [{"url": "s3://lab/both/y"}], ["alices", "of-both"]),
        ([], [{"url": "s3://lab", "type": "FILE"}], ["public", "alices", "of-both"]),
        ([{"url": "s3://lab/a/x"}] * 2, [{"url": "s3://lab/a/x"}], ["alices"]),
        ([{"url": "s3://lab/%61/x", "type": "FILE"}], [], ["public", "alices"]),
        ([], [{"url": "s3://lab-b/x"}, {"url": "s3://lab/a%2Fx"}], ["public", "alices"]),
    ],
)
def test_task_gets_only_credentials_its_urls_need(inputs, outputs, names):
    assert granted_credentials(task(inputs, outputs), ALICE, ENTRIES) == names


def test_work_list_needs_credentials_of_its_task():
    inputs = [InputItem(path="/in/c", local="/task/root/in/c", content_file="content-0")]
    outputs = [OutputItem(url="s3://lab/a/x", path="/o", local="/task/root/o", type="FILE")]
    assert needed_by(inputs, [], ENTRIES) == []
    assert [one.name for one in needed_by(inputs, outputs, ENTRIES)] == ["alices"]


def test_configuration_of_a_caller_has_their_images_and_parameters(config):
    document = config.model_dump(by_alias=True)
    document["executors"]["images"] = ["busybox", {"value": "quay.io/lab-a/", "groups": ["lab-a"]}]
    document["backendParameters"] = {"queue": [{"value": "fast", "users": ["bob"]}]}
    limited = Document.model_validate(document)

    def found(caller):
        theirs = config_for(caller, limited)
        return (
            [entry.value for entry in theirs.executors.images],
            [entry.value for entry in theirs.backend_parameters.queue],
        )

    assert found(ALICE) == (["docker.io/library/busybox", "quay.io/lab-a/"], [])
    assert found(BOB) == (["docker.io/library/busybox"], ["fast"])
    assert config_for(ALICE, config) is config
