import os
import stat
from pathlib import Path

import pytest

from poiesis_staging.tree import Missing, Place, Tree
from poiesis_transfer.errors import Unsendable

NAMES = [
    "a.txt",
    "b.txt",
    ".hidden.txt",
    "sp ace.txt",
    "new\nline.txt",
    "[x].txt",
    "*.txt",
    "back\\slash",
    "é.bam",
    "-rf",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "out" / "one" / "deep").mkdir(parents=True)
    (root / "out" / "two").mkdir()
    for name in NAMES:
        (root / "out" / name).write_text(name)
    (root / "out/one/x.log").write_text("")
    (root / "out/two/x.log").write_text("")
    (root / "out/two/y.log").write_text("")
    return root


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/out/*.txt", ["*.txt", "[x].txt", "a.txt", "b.txt", "new\nline.txt", "sp ace.txt"]),
        ("/out/.*", [".hidden.txt"]),
        ("/out/?.txt", ["*.txt", "a.txt", "b.txt"]),
        ("/out/[ab].txt", ["a.txt", "b.txt"]),
        ("/out/[!ab].txt", ["*.txt"]),
        (r"/out/\*.txt*", ["*.txt"]),
        (r"/out/\[x].tx?", ["[x].txt"]),
        ("/out/*/x.log", ["one/x.log", "two/x.log"]),
        ("/out/*/?.log", ["one/x.log", "two/x.log", "two/y.log"]),
        ("/out/t*", ["two"]),
        ("/*/two/[y]*", ["two/y.log"]),
        ("/out/**/x.log", ["one/x.log", "two/x.log"]),
        ("/out/{a,b}.txt*", []),
        ("/out/a.txt/*", []),
        ("/out/*/absent", []),
        ("/no/*", []),
        ("/out/é*", ["é.bam"]),
        ("/out/-*", ["-rf"]),
        (r"/out/back\\*", ["back\\slash"]),
        ("/out/*/../a.txt", []),
    ],
)
def test_patterns_match_as_in_posix(root: Path, pattern: str, expected: list[str]):
    assert list(Tree(root).expand(pattern)) == [f"/out/{name}" for name in expected]


def links(root: Path) -> None:
    for name, target in {
        "relative": "a.txt",
        "absolute": "/out/a.txt",
        "up": "../out/a.txt",
        "dir": "/out/two",
        "chain": "relative",
        "dangling": "nowhere",
        "passwd": "/etc/passwd",
        "escape": "../../../../../../../../etc/passwd",
        "sibling": "../../secret",
        "environ": "/proc/self/environ",
        "top": "/",
        "loop": "loop",
    }.items():
        (root / "out" / name).symlink_to(target)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/out/a.txt", "/out/a.txt"),
        ("/out/relative", "/out/a.txt"),
        ("/out/absolute", "/out/a.txt"),
        ("/out/up", "/out/a.txt"),
        ("/out/chain", "/out/a.txt"),
        ("/out/dir/y.log", "/out/two/y.log"),
        ("/out/dir/", "/out/two"),
        ("/out/top/out/dir", "/out/two"),
        ("/out/one/../a.txt", "/out/a.txt"),
        ("/../../out/a.txt", "/out/a.txt"),
        ("//out/./a.txt", "/out/a.txt"),
        ("/", "/"),
    ],
)
def test_links_are_followed_as_executors_saw_them(root: Path, path: str, real: str):
    links(root)
    place = Tree(root).find(path)
    assert isinstance(place, Place)
    assert place.real == real
    assert (Path(Tree(root).local(real)).is_dir()) is stat.S_ISDIR(place.mode)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/out/absent", Missing()),
        ("/out/a.txt/x", Missing()),
        ("/out/dangling", Missing("/out/dangling", "nowhere")),
        ("/out/passwd", Missing("/out/passwd", "/etc/passwd")),
        ("/out/escape", Missing("/out/escape", "../../../../../../../../etc/passwd")),
        ("/out/sibling", Missing("/out/sibling", "../../secret")),
        ("/out/environ", Missing("/out/environ", "/proc/self/environ")),
    ],
)
def test_links_never_leave_the_tasks_data(root: Path, path: str, expected: Missing):
    links(root)
    assert Tree(root).find(path) == expected


def test_a_link_to_itself_is_refused(root: Path):
    links(root)
    with pytest.raises(Unsendable, match="/out/loop: too many levels of symbolic links"):
        Tree(root).find("/out/loop")


def test_patterns_follow_links_within_the_tree_only(root: Path):
    links(root)
    (root / "outside").symlink_to(root.parent)
    assert list(Tree(root).expand("/out/dir/*")) == ["/out/dir/x.log", "/out/dir/y.log"]
    assert list(Tree(root).expand("/outside/*")) == []
    assert list(Tree(root).expand("/out/pass*")) == ["/out/passwd"]


def test_a_task_without_data_has_no_files(tmp_path: Path):
    tree = Tree(tmp_path / "absent")
    assert tree.find("/out/x") == Missing()
    assert list(tree.expand("/out/*")) == []


def test_a_name_that_is_not_utf_8_is_found(root: Path):
    (root / "out" / os.fsdecode(b"\xff.raw")).write_text("")
    assert list(Tree(root).expand("/out/*.raw")) == ["/out/\udcff.raw"]
