import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from poiesis_models.worklist import FileType, OutputItem
from poiesis_staging.outputs import Empty, Finding, Found, Note, Refusal, data_root, findings, send_all
from poiesis_transfer.errors import Permanent, Unsendable
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress

OUTSIDE = "which is not in the task's volume"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "out" / "dir" / "sub").mkdir(parents=True)
    (root / "out" / "hollow" / "hollow").mkdir(parents=True)
    (root / "out/file").write_text("x")
    (root / "out/dir/a ?#").write_text("x")
    (root / "out/dir/sub/b").write_text("x")
    return root


@pytest.fixture
def found(root: Path):
    def found(
        path: str, url: str = "s3://b/k", kind: FileType | None = None, prefix: str | None = "-"
    ) -> list[Finding]:
        wildcard = prefix != "-"
        item = OutputItem(
            path=path,
            local=f"{root}{path}",
            url=url,
            type=kind,
            wildcard=wildcard,
            path_prefix=prefix if wildcard else None,
        )
        return list(findings([item]))

    return found


def sent(findings: list[Finding]) -> dict[str, str]:
    assert all(isinstance(finding, Found) for finding in findings), findings
    return {finding.path: finding.url for finding in findings if isinstance(finding, Found)}


def messages(findings: list[Finding]) -> list[str]:
    return [
        finding.message if isinstance(finding, Note) else str(finding.error)
        for finding in findings
        if not isinstance(finding, Found | Empty)
    ]


@pytest.mark.parametrize("kind", ["FILE", None])
def test_a_file_is_sent_to_its_url(found, root: Path, kind: FileType | None):
    assert found("/out/file", "s3://b/a b?#", kind) == [
        Found("/out/file", f"{root}/out/file", "s3://b/a b?#")
    ]


@pytest.mark.parametrize("kind", ["DIRECTORY", "FILE", None])
@pytest.mark.parametrize("url", ["s3://b/k", "s3://b/k/"])
def test_a_directory_is_sent_recursively_for_any_type(found, kind: FileType | None, url: str):
    assert sent(found("/out/dir", url, kind)) == {
        "/out/dir/a ?#": "s3://b/k/a ?#",
        "/out/dir/sub/b": "s3://b/k/sub/b",
    }


def test_a_directory_can_be_a_bucket(found):
    assert list(sent(found("/out/dir/", "s3://b", "DIRECTORY")).values()) == ["s3://b/a ?#", "s3://b/sub/b"]


@pytest.mark.parametrize(
    ("pattern", "prefix", "expected"),
    [
        ("/out/f*", "/out", {"/out/file": "s3://b/k/file"}),
        ("/out/f*", "/out/", {"/out/file": "s3://b/k/file"}),
        ("/out/f*", "/", {"/out/file": "s3://b/k/out/file"}),
        ("/out/f*", "", {"/out/file": "s3://b/k/out/file"}),
        ("/out/f*", "/out/f", {"/out/file": "s3://b/k/ile"}),
        ("/out/d*", "/out", {"/out/dir/a ?#": "s3://b/k/dir/a ?#", "/out/dir/sub/b": "s3://b/k/dir/sub/b"}),
        ("/out/*/sub/?", "/out/dir", {"/out/dir/sub/b": "s3://b/k/sub/b"}),
    ],
)
def test_a_match_loses_its_path_prefix(found, pattern: str, prefix: str, expected: dict[str, str]):
    assert sent(found(pattern, "s3://b/k", None, prefix)) == expected


def test_without_a_prefix_the_literal_directory_is_used(found):
    assert sent(found("/out/di*/sub/b", "s3://b/k", None, None)) == {"/out/dir/sub/b": "s3://b/k/dir/sub/b"}


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/out/x[1].txt", None, {"/out/x1.txt": "s3://b/k/x1.txt", "/out/x[1].txt": "s3://b/k"}),
        ("/out/x[1].txt", "/out", {"/out/x1.txt": "s3://b/k/x1.txt", "/out/x[1].txt": "s3://b/k/x[1].txt"}),
        ("/out/y[1].txt", None, {"/out/y[1].txt": "s3://b/k"}),
        ("/out/run[1]", None, {"/out/run[1]/a": "s3://b/k/a"}),
        ("/out/run[1]/a", None, {"/out/run[1]/a": "s3://b/k"}),
        (r"/out/y\[[1]\].txt", None, {"/out/y[1].txt": "s3://b/k/y[1].txt"}),
        (r"/out/[wx]\[1\].txt", None, {"/out/x[1].txt": "s3://b/k/x[1].txt"}),
    ],
)
def test_brackets_are_a_pattern_and_a_name(found, root: Path, path, prefix, expected):
    (root / "out/run[1]").mkdir()
    for name in ("x1.txt", "x[1].txt", "y[1].txt", "run[1]/a"):
        (root / "out" / name).write_text("x")
    results = found(path, "s3://b/k", None, prefix)
    assert sent([one for one in results if isinstance(one, Found)]) == expected
    exact = [one.message for one in results if isinstance(one, Note)]
    assert all("was also read as a literal name" in message for message in exact)
    assert len(exact) == ("\\" not in path)


def test_a_mismatched_prefix_is_a_warning(found):
    note, one = found("/out/f*", "s3://b/k", None, "/elsewhere")
    assert note == Note(
        "output /out/file does not start with its path_prefix /elsewhere; using the whole path"
    )
    assert sent([one]) == {"/out/file": "s3://b/k/out/file"}


@pytest.mark.parametrize(
    ("path", "prefix", "message"),
    [
        ("/out/absent", "-", "output /out/absent was not produced"),
        ("/out/file/x", "-", "output /out/file/x was not produced"),
        ("/out/*.bam", "/out", "output /out/*.bam was not produced: no file matches"),
        ("/out/hollow", "-", "output /out/hollow is a directory without files; nothing was sent"),
        ("/out/hol*", "/out", "output /out/hollow is a directory without files; nothing was sent"),
    ],
)
def test_missing_output_causes_a_warning(found, path: str, prefix: str, message: str):
    assert messages(found(path, prefix=prefix)) == [message]


def test_special_files_are_left_out(found, root: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(root / "out/dir/fifo")
    monkeypatch.chdir(root / "out/dir")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    result = found("/out/dir")
    assert messages(result) == [
        "/out/dir/fifo is a FIFO; left out",
        "/out/dir/socket is a socket; left out",
    ]
    assert len(result) == 4
    assert found("/out/dir/fifo") == [Note("/out/dir/fifo is a FIFO; left out")]


def test_a_link_to_a_copied_target_is_sent(found, root: Path):
    """The helper copies what an executor's link leads to to the same path in the volume."""
    (root / "out/outside").symlink_to("/tmp/real")
    assert found("/out/outside", "s3://b/o")[-1] == Note(
        "/out/outside was left out: the symbolic link /out/outside leads to /tmp/real, which is not "
        "in the task's volume"
    )
    (root / "tmp").mkdir()
    (root / "tmp/real").write_text("data")
    assert found("/out/outside", "s3://b/o") == [Found("/out/outside", f"{root}/tmp/real", "s3://b/o")]


def test_links_are_sent_as_their_targets(found, root: Path):
    (root / "link").symlink_to("/out/dir")
    (root / "out/dir/in").symlink_to("/out/file")
    (root / "out/dir/out").symlink_to("/etc/passwd")
    (root / "out/dir/up").symlink_to("../..")
    (root / "out/dir/sub/loop").symlink_to("loop")
    result = found("/link")
    assert sent([finding for finding in result if isinstance(finding, Found)]) == {
        "/link/a ?#": "s3://b/k/a ?#",
        "/link/in": "s3://b/k/in",
        "/link/sub/b": "s3://b/k/sub/b",
        "/link/up/out/file": "s3://b/k/up/out/file",
    }
    assert [message for message in messages(result) if "up/" not in message] == [
        f"/link/out was left out: the symbolic link /out/dir/out leads to /etc/passwd, {OUTSIDE}",
        "cannot read output /out/dir/sub/loop: too many levels of symbolic links",
    ]
    assert all(
        message.endswith("is a symbolic link to a directory that contains it; not followed")
        for message in messages(result)
        if "up/" in message
    )


@pytest.mark.parametrize(
    ("path", "url", "kind", "words"),
    [
        ("/out/file", "s3://b/k", "DIRECTORY", "output /out/file is declared as DIRECTORY, but it is a file"),
        ("/out/file", "s3://b/k/", "FILE", "its URL s3://b/k/ names a directory"),
    ],
)
def test_a_file_needs_a_files_url(found, path: str, url: str, kind: FileType | None, words: str):
    (refusal,) = found(path, url, kind)
    assert isinstance(refusal, Refusal)
    assert words in str(refusal.error)


def test_a_name_that_is_not_utf_8_is_refused(found, root: Path):
    (root / "out/dir" / os.fsdecode(b"\xff")).write_text("")
    result = found("/out/dir")
    assert messages(result) == ["output /out/dir/\ufffd: its name is not UTF-8, which URLs require"]
    assert len(result) == 3


def test_an_empty_directory_is_found(found, root: Path):
    (root / "out/dir/empty").mkdir()
    assert [finding for finding in found("/out/dir") if isinstance(finding, Empty)] == [
        Empty("/out/dir/empty")
    ]


def test_a_work_list_that_contradicts_itself_is_refused():
    with pytest.raises(Permanent, match="invalid work list"):
        data_root(OutputItem(path="/a", local="/task/root/b", url="s3://b/k"))


def test_a_tree_deeper_than_pythons_stack_is_walked(found, root: Path):
    nested = [root / "out/deep"]
    while len(nested) < sys.getrecursionlimit():
        nested.append(nested[-1] / "d")
    for directory in nested:
        directory.mkdir()
    assert messages(found("/out/deep")) == ["output /out/deep is a directory without files; nothing was sent"]
    for directory in reversed(nested):
        directory.rmdir()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory, and a process that may not read everything even if it was started by root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        was_root = os.geteuid() == 0
        if was_root:
            os.chown(folder, 65532, -1)
            os.seteuid(65532)
        try:
            yield Path(folder)
        finally:
            if was_root:
                os.seteuid(0)


def test_an_unreadable_file_is_refused_by_name(unprivileged: Path):
    for name in ("closed-directory/x", "listed-directory/x", "closed-file", "open"):
        path = unprivileged / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    for name, mode in {"closed-directory": 0, "listed-directory": 0o444, "closed-file": 0}.items():
        (unprivileged / name).chmod(mode)
    items = [
        OutputItem(path="/", local=f"{unprivileged}/", url="s3://b/k"),
        OutputItem(
            path="/listed*/x",
            local=f"{unprivileged}/listed*/x",
            url="s3://b/w",
            wildcard=True,
            path_prefix="/",
        ),
    ]
    refused = []
    for finding in findings(items):
        if isinstance(finding, Refusal):
            refused.append(str(finding.error))
        elif isinstance(finding, Found):
            try:
                with SourceFile(finding.local, finding.path) as source:
                    assert (finding.path, list(source.blocks(0, 1))) == ("/open", [b"x"])
            except Unsendable as error:
                refused.append(str(error))
    (unprivileged / "closed-directory").chmod(0o755)
    (unprivileged / "listed-directory").chmod(0o755)
    paths = ["/closed-file", "/closed-directory", "/listed-directory/x", "/listed-directory/x"]
    assert [message.partition(": permission denied")[0] for message in refused] == [
        f"cannot read output {path}" for path in paths
    ]


def test_unsendable_files_fail_after_the_rest_is_sent(root: Path, tmp_path: Path):
    def item(path: str) -> OutputItem:
        return OutputItem(path=path, local=f"{root}{path}", url=f"x://h{path}")

    def upload(found: Found) -> int:
        if found.path == "/out/dir/a ?#":
            raise Unsendable("no such name there")
        uploaded.append(found.path)
        return 7

    uploaded: list[str] = []
    items = [item("/out/dir"), item("/out/none"), item("/out/file")]
    with Progress(tmp_path) as progress, pytest.raises(Unsendable) as failure:
        send_all(items, upload, progress, concurrency=1)
    assert str(failure.value) == "no such name there"
    assert uploaded == ["/out/dir/sub/b", "/out/file"]
    assert [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()] == [
        {"event": "output", "url": "x://h/out/dir/sub/b", "path": "/out/dir/sub/b", "size_bytes": 7},
        {"event": "warning", "message": "output /out/none was not produced"},
        {"event": "output", "url": "x://h/out/file", "path": "/out/file", "size_bytes": 7},
        {"event": "progress", "files": 2, "bytes": 0},
    ]
