"""Filers stage inputs according to the contract."""

import os
from collections.abc import Callable

import pytest

from poiesis_e2e.filer_kit.container import Pod
from poiesis_e2e.filer_kit.stores import ODD_NAMES, Store

pytestmark = [pytest.mark.integration, pytest.mark.needs("inputs")]
BIG = 24 * 1024 * 1024
Write = Callable[..., None]


def test_staged_files_are_complete_and_world_readable(
    pod: Pod, store: Store, staging: Write, name: str
) -> None:
    data = os.urandom(100_000)
    store.put({f"{name}/a": data})
    staging({"path": "/data/deep/er/a", "url": store.url(f"{name}/a"), "type": "FILE"})
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")
    staged = pod.root / "data/deep/er/a"
    assert staged.read_bytes() == data
    assert staged.stat().st_mode & 0o666 == 0o666
    assert staged.parent.stat().st_mode & 0o777 == staged.parent.parent.stat().st_mode & 0o777 == 0o777


def test_last_progress_event_holds_the_totals(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/{number}": b"x" * number for number in range(3)})
    staging(*({"path": f"/data/{n}", "url": store.url(f"{name}/{n}"), "type": "FILE"} for n in range(3)))
    last = pod.run().of_kind("progress")[-1]
    assert (last["files"], last["bytes"]) == (3, 3)


def test_a_file_of_no_declared_type_is_staged(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/a": b"x"})
    staging({"path": "/data/a", "url": store.url(f"{name}/a")})
    assert pod.run().exit_code == 0
    assert (pod.root / "data/a").read_bytes() == b"x"


def test_an_empty_file_is_a_file(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/empty": b""})
    staging({"path": "/data/empty", "url": store.url(f"{name}/empty"), "type": "FILE"})
    assert pod.run().exit_code == 0
    assert (pod.root / "data/empty").read_bytes() == b""


def test_any_name_is_staged(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/{odd}": odd.encode() for odd in ODD_NAMES})
    staging(
        *({"path": f"/data/{odd}", "url": store.url(f"{name}/{odd}"), "type": "FILE"} for odd in ODD_NAMES)
    )
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")
    assert {path.name: path.read_text() for path in (pod.root / "data").iterdir()} == {
        odd: odd for odd in ODD_NAMES
    }


def test_literal_content_is_staged(pod: Pod, staging: Write) -> None:
    text = 'a "quoted" $line\n\ttab \\ ünï\n'
    staging({"path": "/data/run.sh", "type": "FILE", "content_file": "content-0"}, content_0=text)
    assert pod.run().exit_code == 0
    assert (pod.root / "data/run.sh").read_text() == text
    assert (pod.root / "data/run.sh").stat().st_mode & 0o666 == 0o666


def test_files_of_an_earlier_start_are_replaced(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/a": b"one"})
    staging({"path": "/data/a", "url": store.url(f"{name}/a"), "type": "FILE"})
    assert pod.run().exit_code == 0
    store.put({f"{name}/a": b"two"})  # of the same size
    assert pod.run().exit_code == 0
    assert (pod.root / "data/a").read_bytes() == b"two"
    assert [path.name for path in (pod.root / "data").iterdir()] == ["a"]


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_stopped_filer_leaves_no_partial_file(
    pod: Pod, store: Store, staging: Write, name: str, signal: str
) -> None:
    data = os.urandom(BIG)
    store.put({f"{name}/big": data})
    staging({"path": "/data/big", "url": store.url(f"{name}/big"), "type": "FILE"})
    pod.interrupted(signal)
    staged = pod.root / "data/big"
    assert not staged.exists() or staged.read_bytes() == data
    assert pod.run().exit_code == 0
    assert staged.read_bytes() == data


def test_missing_object_is_a_permanent_error_with_name(
    pod: Pod, store: Store, staging: Write, name: str
) -> None:
    staging({"path": "/data/none", "url": store.url(f"{name}/none"), "type": "FILE"})
    ended = pod.run()
    assert ended.exit_code == 65
    assert f"{name}/none" in ended.of_kind("error")[-1]["message"]
    assert not (pod.root / "data/none").exists()


@pytest.mark.needs("http")
def test_signature_is_not_reported(pod: Pod, store: Store, staging: Write, name: str) -> None:
    staging({"path": "/data/none", "url": store.url(f"{name}/none") + "?signature=s3cr3t", "type": "FILE"})
    ended = pod.run()
    assert ended.exit_code == 65
    assert "s3cr3t" not in ended.log + ended.messages


@pytest.mark.needs("network")
def test_unreachable_store_is_a_retryable_error(pod: Pod, store: Store, staging: Write, name: str) -> None:
    staging({"path": "/data/a", "url": store.url(f"{name}/a"), "type": "FILE"})
    ended = pod.run_alone(network="none")
    assert ended.exit_code == 75
    assert ended.of_kind("error")
    assert not (pod.root / "data/a").exists()


def test_full_volume_is_a_permanent_error(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/big": bytes(4 * 1024 * 1024)})
    staging({"path": "/data/big", "url": store.url(f"{name}/big"), "type": "FILE"})
    ended = pod.run_alone(options=["--tmpfs", "/task/root/data:rw,size=1m,mode=0777"])
    assert ended.exit_code == 65
    assert "space" in ended.of_kind("error")[-1]["message"]


@pytest.mark.needs("types")
def test_type_of_untyped_input_is_reported(pod: Pod, store: Store, staging: Write, name: str) -> None:
    store.put({f"{name}/a": b"x"})
    staging(
        {"path": "/data/declared", "url": store.url(f"{name}/a"), "type": "FILE"},
        {"path": "/data/found", "url": store.url(f"{name}/a")},
        {"path": "/data/text", "content_file": "content-0"},
        content_0="x",
    )
    types = {one["path"]: one["type"] for one in pod.run().of_kind("input")}
    assert types == {"/data/found": "FILE", "/data/text": "FILE"}


@pytest.mark.needs("directories")
def test_directory_is_staged_recursively_with_or_without_type(
    pod: Pod, store: Store, staging: Write, name: str
) -> None:
    files = {f"ref/{n}/f {n}#é": f"{n}".encode() for n in range(12)} | {"ref/top": b"t", "ref/a/b/c/d": b"d"}
    beside = {"refuse/not": b"below another directory"}
    store.put({f"{name}/{path}": data for path, data in (files | beside).items()})
    url = store.url(f"{name}/ref")
    staging({"path": "/data/declared", "url": url, "type": "DIRECTORY"}, {"path": "/data/found", "url": url})
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")
    for staged in (pod.root / "data/declared", pod.root / "data/found"):
        assert {
            f"ref/{path.relative_to(staged)}": path.read_bytes()
            for path in staged.rglob("*")
            if path.is_file()
        } == files
        modes = {path.stat().st_mode & 0o777 for path in staged.rglob("*") if path.is_dir()}
        assert modes == {0o777}
    assert ended.of_kind("progress")[-1]["files"] == 2 * len(files)
    assert {one["path"]: one["type"] for one in ended.of_kind("input")} in (
        {"/data/found": "DIRECTORY"},
        {},  # reporting types is optional
    )


@pytest.mark.needs("directories")
def test_missing_directory_is_a_permanent_error(pod: Pod, store: Store, staging: Write, name: str) -> None:
    staging({"path": "/data/none", "url": store.url(f"{name}/none"), "type": "DIRECTORY"})
    ended = pod.run()
    assert ended.exit_code == 65
    assert f"{name}/none" in ended.of_kind("error")[-1]["message"]
