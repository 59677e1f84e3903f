"""Filers send outputs according to the contract."""

from collections.abc import Callable
from pathlib import Path

import pytest

from poiesis_e2e.filer_kit.container import Pod
from poiesis_e2e.filer_kit.stores import ODD_NAMES, Store

pytestmark = [pytest.mark.integration, pytest.mark.needs("outputs")]
Write = Callable[..., None]
OUTSIDE = (
    "/etc/passwd",
    "/proc/self/environ",
    "/poiesis/spec/work.json",
    "../../../poiesis/spec/work.json",
    "../../../../../proc/self/environ",
    "/task/root/../../etc/passwd",
)


def produce(path: Path, text: str = "x") -> None:
    """Create a file as an executor that runs as root does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def test_sent_file_is_reported(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/out", "out\n" * 5000)
    url = store.url(f"{name}/deep/er/out")
    sending({"path": "/data/out", "url": url, "type": "FILE"})
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")
    assert store.get(f"{name}/deep/er/out") == b"out\n" * 5000
    assert ended.of_kind("output") == [
        {"event": "output", "url": url, "path": "/data/out", "size_bytes": 20000}
    ]
    last = ended.of_kind("progress")[-1]
    assert (last["files"], last["bytes"]) == (1, 20000)


def test_an_empty_file_is_sent(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/out", "")
    sending({"path": "/data/out", "url": store.url(f"{name}/out")})
    assert pod.run().exit_code == 0
    assert store.get(f"{name}/out") == b""


def test_any_name_is_sent(pod: Pod, store: Store, sending: Write, name: str) -> None:
    for odd in ODD_NAMES:
        produce(pod.root / "data" / odd, odd)
    urls = {f"/data/{odd}": store.url(f"{name}/{odd}") for odd in ODD_NAMES}
    sending(*({"path": path, "url": url} for path, url in urls.items()))
    ended = pod.run()
    assert (ended.exit_code, ended.messages) == (0, "")
    assert {odd: store.get(f"{name}/{odd}") for odd in ODD_NAMES} == {odd: odd.encode() for odd in ODD_NAMES}
    assert {one["path"]: one["url"] for one in ended.of_kind("output")} == urls


def test_existing_object_of_equal_size_is_replaced(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/out", "one")
    sending({"path": "/data/out", "url": store.url(f"{name}/out")})
    assert pod.run().exit_code == 0
    produce(pod.root / "data/out", "two")
    assert pod.run().exit_code == 0
    assert store.get(f"{name}/out") == b"two"


def test_missing_output_causes_a_warning(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/out")
    sending(
        {"path": "/data/none", "url": store.url(f"{name}/none"), "type": "FILE"},
        {"path": "/data/out", "url": store.url(f"{name}/out"), "type": "FILE"},
    )
    ended = pod.run()
    assert ended.exit_code == 0
    assert "/data/none" in ended.of_kind("warning")[0]["message"]
    assert store.get(f"{name}/none") is None
    assert store.get(f"{name}/out") == b"x"


def test_directory_is_sent_recursively_for_any_declared_type(
    pod: Pod, store: Store, sending: Write, name: str
) -> None:
    files = {"a": "a", "b/c d#": "c", "b/.hidden": "h", "b/d/e": ""}
    declared = {"directory": {"type": "DIRECTORY"}, "file": {"type": "FILE"}, "nothing": {}}
    for path, text in files.items():
        produce(pod.root / "data/dir" / path, text)
    sending(
        *(
            {"path": "/data/dir", "url": store.url(f"{name}/{below}"), **kind}
            for below, kind in declared.items()
        )
    )
    ended = pod.run()
    assert ended.exit_code == 0
    for below in declared:
        assert {path: store.get(f"{name}/{below}/{path}") for path in files} == {
            path: text.encode() for path, text in files.items()
        }
    assert sorted((one["path"], one["size_bytes"]) for one in ended.of_kind("output")) == sorted(
        (f"/data/dir/{path}", len(text)) for path, text in files.items() for _ in declared
    )


def test_pattern_sends_matches_without_the_path_prefix(
    pod: Pod, store: Store, sending: Write, name: str
) -> None:
    for path in ("a.bam", "b b.bam", ".c.bam", "d.txt", "sub/e.bam", "f.bam.d/g"):
        produce(pod.root / "data/out" / path, path)

    def pattern(path: str, below: str, prefix: str) -> dict[str, object]:
        url = store.url(f"{name}/{below}")
        return {"path": path, "url": url, "wildcard": True, "path_prefix": prefix}

    sending(
        pattern("/data/out/*.bam", "all", "/data"),
        pattern("/data/out/[!a-c].tx?", "one", ""),
        pattern("/data/out/*/?", "deep", "/data/out"),
        pattern("/data/*.none", "none", "/data"),
    )
    ended = pod.run()
    assert ended.exit_code == 0
    assert {one["path"] for one in ended.of_kind("output")} == {
        *("/data/out/a.bam", "/data/out/b b.bam", "/data/out/d.txt", "/data/out/f.bam.d/g")
    }
    assert store.get(f"{name}/all/out/a.bam") == b"a.bam"
    assert store.get(f"{name}/all/out/b b.bam") == b"b b.bam"
    assert store.get(f"{name}/one/data/out/d.txt") == b"d.txt"
    assert store.get(f"{name}/deep/f.bam.d/g") == b"f.bam.d/g"
    assert store.get(f"{name}/all/out/.c.bam") is None
    assert "/data/*.none" in ended.messages


def test_link_within_the_volume_sends_its_target(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/real", "real")
    (pod.root / "data/link").symlink_to("real")
    sending({"path": "/data/link", "url": store.url(f"{name}/link")})
    ended = pod.run()
    assert ended.exit_code == 0
    assert store.get(f"{name}/link") == b"real"
    assert [one["path"] for one in ended.of_kind("output")] == ["/data/link"]


def test_link_out_of_the_volume_causes_a_warning(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/dir/real")
    links = {f"link-{number}": target for number, target in enumerate(OUTSIDE)}
    for link, target in links.items():
        (pod.root / "data/dir" / link).symlink_to(target)
    pattern = {"path": "/data/*/link-*", "wildcard": True, "path_prefix": "/data"}
    sending(
        {"path": "/data/dir", "url": store.url(f"{name}/dir"), "type": "DIRECTORY"},
        *(
            {"path": f"/data/dir/{link}", "url": store.url(f"{name}/{link}"), "type": "FILE"}
            for link in links
        ),
        {"url": store.url(f"{name}/w"), **pattern},
    )
    ended = pod.run()
    assert ended.exit_code == 0
    assert [one["path"] for one in ended.of_kind("output")] == ["/data/dir/real"]
    for link in links:
        for stored in (f"dir/{link}", link, f"w/dir/{link}"):
            assert store.get(f"{name}/{stored}") is None
        assert ended.messages.count(f"/data/dir/{link}") >= 3


@pytest.mark.needs("network")
def test_unreachable_store_is_a_retryable_error(pod: Pod, store: Store, sending: Write, name: str) -> None:
    produce(pod.root / "data/out")
    sending({"path": "/data/out", "url": store.url(f"{name}/out")})
    ended = pod.run_alone(network="none")
    assert ended.exit_code == 75
    assert ended.of_kind("error")
    assert not ended.of_kind("output")
