"""Files go to and from shared volumes, and nowhere else."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from poiesis_file.move import copy_all
from poiesis_file.volumes import Volumes
from poiesis_models.shared import SharedVolume
from poiesis_models.worklist import InputItem, OutputItem, WorkList
from poiesis_transfer.config import Config, S3Config
from poiesis_transfer.errors import Permanent, TransferError, Unsendable
from poiesis_transfer.progress import Progress


class Lab:
    """Two shared volumes, /nfs/in (read-only) and /nfs/out, and a task volume."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.root, self.run = folder / "shared", folder / "task/root", folder / "run"
        for path in (self.shared / "nfs/in", self.shared / "nfs/out", self.root, self.run):
            path.mkdir(parents=True)
        self.config = Config(run=self.run, work_list=self.run / "work.json", s3=S3Config())
        self.volumes = Volumes(
            root=self.shared,
            volumes=(SharedVolume(prefix="/nfs/in"), SharedVolume(prefix="/nfs/out", writable=True)),
        )

    def stage(self, url: str, path: str = "/d/x", kind: str | None = None) -> None:
        item = InputItem(path=path, local=f"{self.root}{path}", url=url, type=kind)
        self.run_filer(WorkList(task="t", inputs=(item,)))

    def send(self, path: str, url: str) -> None:
        item = OutputItem(path=path, local=f"{self.root}{path}", url=url)
        self.run_filer(WorkList(task="t", outputs=(item,)))

    def run_filer(self, work: WorkList) -> None:
        with Progress(self.run) as progress:
            copy_all(self.volumes, self.config, work, progress)

    def events(self, event: str) -> list[dict]:
        lines = [json.loads(line) for line in (self.run / "progress.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "secret").write_text("secret")
    return Lab(tmp_path)


def tree(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("url", ["file:///nfs/in/a%20b", "/nfs/in/a b"])
def test_a_file_is_copied_for_any_uid(lab: Lab, url: str):
    (lab.shared / "nfs/in/a b").write_text("x" * 3_000_000)
    (lab.shared / "nfs/in/a b").chmod(0o600)
    os.utime(lab.shared / "nfs/in/a b", (1_000_000_000, 1_000_000_000))
    lab.stage(url)
    assert (lab.root / "d/x").read_text() == "x" * 3_000_000
    assert (lab.root / "d/x").stat().st_mode & 0o777 == 0o777
    assert (lab.root / "d/x").stat().st_mtime == 1_000_000_000
    assert (lab.root / "d").stat().st_mode & 0o777 == 0o777
    assert lab.events("progress")[-1] == {"event": "progress", "files": 1, "bytes": 3_000_000}


@pytest.mark.parametrize(
    ("url", "kind", "reported"),
    [
        ("/nfs/in/file", None, ["FILE"]),
        ("/nfs/in/folder", None, ["DIRECTORY"]),
        ("/nfs/in/file", "FILE", []),
        ("/nfs/in/folder", "DIRECTORY", []),
    ],
)
def test_missing_type_of_an_input_is_reported(lab: Lab, url: str, kind: str, reported: list[str]):
    (lab.shared / "nfs/in/file").write_text("x")
    (lab.shared / "nfs/in/folder").mkdir()
    lab.stage(url, kind=kind)
    assert lab.events("input") == [{"event": "input", "path": "/d/x", "type": one} for one in reported]


@pytest.mark.parametrize("order", [1, -1])
def test_the_deeper_of_overlapping_inputs_wins(lab: Lab, order: int):
    for name in ("one/dos/same", "one/dos/only", "one/top", "two/same", "top"):
        (lab.shared / "nfs/in" / name).parent.mkdir(exist_ok=True, parents=True)
        (lab.shared / "nfs/in" / name).write_text(name)
    inputs = [
        InputItem(path=path, local=f"{lab.root}{path}", url=f"/nfs/in/{name}")
        for path, name in (("/d/dos", "two"), ("/d", "one"), ("/d/top", "top"))
    ]
    lab.run_filer(WorkList(task="t", inputs=tuple(inputs[::order])))
    files = {"d/dos/only": "one/dos/only", "d/dos/same": "two/same", "d/top": "top"}
    assert {name: text for name, text in tree(lab.root).items() if text is not None} == files


@pytest.mark.parametrize("kind", ["DIRECTORY", None])
def test_a_directory_is_copied_with_link_targets(lab: Lab, kind: str | None):
    given = lab.shared / "nfs/in/d"
    (given / "deep/er").mkdir(parents=True)
    (given / "empty").mkdir()
    (given / "deep/er/f").write_text("f")
    (given / "near").symlink_to("deep/er/f")
    (given / "absolute").symlink_to("/nfs/in/d/deep/er/f")
    (given / "other").symlink_to("/nfs/out/o")
    (lab.shared / "nfs/out/o").write_text("o")
    os.mkfifo(given / "fifo")
    lab.stage("/nfs/in/d", kind=kind)
    assert tree(lab.root / "d/x") == {
        "absolute": "f",
        "deep": None,
        "deep/er": None,
        "deep/er/f": "f",
        "empty": None,
        "near": "f",
        "other": "o",
    }
    assert [line["message"] for line in lab.events("warning")] == ["/nfs/in/d/fifo is a FIFO; left out"]


def test_inputs_beyond_disk_gb_are_not_started(lab: Lab):
    (lab.shared / "nfs/in/big").write_bytes(bytes(1001))
    lab.config = replace(lab.config, disk_bytes=1000)
    with pytest.raises(Permanent, match="the task's volume is full: no space left to write /d/x"):
        lab.stage("/nfs/in/big")
    assert not (lab.root / "d/x").exists()


@pytest.mark.parametrize("target", ["/secret", "../../../secret", "../../../../secret", "/etc/passwd"])
def test_a_link_that_leads_out_is_not_followed(lab: Lab, target: str):
    (lab.shared / "nfs/in/link").symlink_to(target)
    with pytest.raises(Permanent, match="/nfs/in/link"):
        lab.stage("/nfs/in/link")
    lab.stage("/nfs/in", path="/all")
    assert tree(lab.root) == {"all": None}
    assert "/nfs/in/link" in lab.events("warning")[0]["message"]


def test_a_link_created_after_resolution_is_refused(lab: Lab, tmp_path: Path):
    (lab.shared / "nfs/in/d").mkdir()
    (lab.shared / "nfs/in/d/secret").write_text("x")
    place = lab.volumes.find("/nfs/in/d/secret")
    (lab.shared / "nfs/in/d/secret").unlink()
    (lab.shared / "nfs/in/d").rmdir()
    (lab.shared / "nfs/in/d").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        lab.volumes.open(place.real)


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("/nfs/in/none", None, "/nfs/in/none does not exist"),
        ("/nfs", None, "/nfs is outside every shared volume \\(configured: /nfs/in, /nfs/out\\)"),
        ("/etc/passwd", None, "outside every shared volume"),
        ("file:///nfs/in/../../etc", None, "is not a file URL"),
        ("/nfs/in/f", "DIRECTORY", "is a file, but input /d/x is declared as DIRECTORY"),
        ("/nfs/in/f/", None, "is a file"),
        ("/nfs/in", "FILE", "is a directory, but input /d/x is declared as FILE"),
    ],
)
def test_what_cannot_be_staged_is_named(lab: Lab, url: str, kind: str | None, words: str):
    (lab.shared / "nfs/in/f").write_text("f")
    with pytest.raises(Permanent, match=words):
        lab.stage(url, kind=kind)
    assert tree(lab.root) == {}


def test_an_output_replaces_a_file_atomically(lab: Lab):
    (lab.root / "d").mkdir()
    (lab.root / "d/a").write_text("new")
    (lab.root / "d/e").mkdir()
    (lab.root / "d/e/b").write_text("b")
    (lab.shared / "nfs/out/run").mkdir()
    (lab.shared / "nfs/out/run/a").write_text("older and longer")
    lab.send("/d", "file:///nfs/out/run")
    assert tree(lab.shared / "nfs/out") == {"run": None, "run/a": "new", "run/e": None, "run/e/b": "b"}
    assert (lab.shared / "nfs/out/run/e/b").stat().st_mode & 0o777 == 0o664
    assert sorted((line["url"], line["size_bytes"]) for line in lab.events("output")) == [
        ("file:///nfs/out/run/a", 3),
        ("file:///nfs/out/run/e/b", 1),
    ]


@pytest.mark.parametrize(("hands_on", "made"), [(0o755, 0o775), (0o2775, 0o2775)])
def test_new_directories_are_writable_for_the_group(lab: Lab, hands_on: int, made: int):
    (lab.root / "d").mkdir()
    (lab.root / "d/a").write_text("new")
    (lab.shared / "nfs/out").chmod(hands_on)
    umask = os.umask(0o077)
    try:
        lab.send("/d/a", "file:///nfs/out/one/two/a")
    finally:
        os.umask(umask)
    for directory in ("one", "one/two"):
        assert (lab.shared / "nfs/out" / directory).stat().st_mode & 0o7777 == made


@pytest.mark.parametrize("url", ["file:///nfs/out/a%20b", "/nfs/out/a b"])
def test_unusual_names_are_kept(lab: Lab, url: str):
    (lab.root / "d").mkdir()
    for name in ("c#d", "e%20f", "g?h", "\u00fc"):
        (lab.root / "d" / name).write_text(name)
    lab.send("/d", url)
    written = tree(lab.shared / "nfs/out/a b")
    assert written == {name: name for name in ("c#d", "e%20f", "g?h", "\u00fc")}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/nfs/in/x", "the shared volume /nfs/in is read-only"),
        ("/nfs/x", "outside every shared volume"),
        ("/nfs/out/link/x", "expected a directory"),
        ("/nfs/out/file/x", "expected a directory"),
        ("/nfs/out/dir", "is a directory, expected a file"),
    ],
)
def test_an_output_goes_nowhere_else(lab: Lab, tmp_path: Path, url: str, words: str):
    (lab.root / "f").write_text("f")
    (lab.shared / "nfs/out/link").symlink_to(tmp_path)
    (lab.shared / "nfs/out/file").write_text("")
    (lab.shared / "nfs/out/dir").mkdir()
    before = tree(tmp_path / "shared")
    with pytest.raises(TransferError, match=words):
        lab.send("/f", url)
    assert tree(tmp_path / "shared") == before
    assert not (tmp_path / "x").exists()


def test_output_of_a_killed_filer_is_replaced(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    (lab.root / "f").write_text("whole")
    monkeypatch.setattr("poiesis_file.move._publish", lambda *_: (_ for _ in ()).throw(Unsendable("cut")))
    monkeypatch.setattr(os, "unlink", lambda *_, **__: None)
    with pytest.raises(Unsendable):
        lab.send("/f", "/nfs/out/f")
    monkeypatch.undo()
    assert [path.name[:9] for path in (lab.shared / "nfs/out").iterdir()] == [".poiesis-"]
    lab.send("/f", "/nfs/out/f")
    assert tree(lab.shared / "nfs/out") == {"f": "whole"}


def test_volumes_that_cannot_be_read_are_refused():
    with pytest.raises(Permanent, match="POIESIS_SHARED"):
        Volumes.from_env({"POIESIS_SHARED": "/nfs"})
