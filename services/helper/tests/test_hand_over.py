"""What happens before and after the process: memory, files that are placed and collected, modes."""

import os
import subprocess
import sys
from pathlib import Path
from stat import S_ISDIR

import pytest

V1 = "memory/memory.oom_control"
V2 = "memory.events"
TEXT = {
    V1: "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    V2: "low 0\nhigh 0\nmax 7\noom 9\noom_kill {}\noom_group_kill 0\n",
}


@pytest.fixture(params=[V1, V2], ids=["cgroup v1", "cgroup v2"])
def counter(container, request):
    """Return the shell command that sets the counter of OOM kills; it is 3 now."""
    file = container.cgroup / request.param
    file.parent.mkdir(parents=True)
    file.write_text(TEXT[request.param].format(3))
    return lambda kills: "printf '{}' > {}".format(
        TEXT[request.param].format(kills).replace("\n", "\\n"), file
    )


@pytest.mark.parametrize(
    "options", [[], ["--ignore-error"], ["--on-failure", "continue"]], ids=["", "ignore", "continue"]
)
@pytest.mark.parametrize("end", ["exit 0", "exit 7", "kill -9 $$", "exit 75"])
def test_an_out_of_memory_kill_exits_137(container, counter, options, end):
    retry = ["--retry-exit-code=75", "--retry-attempts=3", "--retry-killed"]
    ended = container.sh(f"echo ran; {counter(4)}; {end}", options=[*options, *retry])
    assert (ended.code, ended.out) == (137, b"ran\n")
    assert container.exit["exit_code"] == 137
    assert container.exit["oom"] is True
    assert not container.has("failed")
    assert container.sh("echo again", options=options).code == 137  # a second start returns the same


@pytest.mark.parametrize("end", ["exit 0", "exit 137", "kill -9 $$"])
def test_kills_of_an_earlier_time_are_not_ours(container, counter, end):
    ended = container.sh(end)
    assert container.exit["oom"] is False
    assert ended.code == container.exit["exit_code"] == (0 if end == "exit 0" else 137)


def test_a_late_kill_counter_is_awaited(container, counter):
    # The main process dies of SIGKILL; another process raises the counter a little later.
    process = container.start("sh", "-c", "echo ready; sleep 0.2; kill -9 $$")
    assert process.stdout.readline() == b"ready\n"
    subprocess.run(["sh", "-c", f"sleep 0.21; {counter(4)}"], check=True)
    assert process.wait(10) == 137
    assert container.exit["signal"] == 9
    assert container.exit["oom"] is True


def test_without_cgroup_files_no_kill_is_recorded(container):
    assert container.sh("kill -9 $$").code == 137
    assert container.exit["oom"] is False


@pytest.fixture
def task(container, tmp_path):
    """The task's volume, and the options with its paths for the helper."""
    volume = tmp_path / "volume"
    volume.mkdir()

    class Task:
        root = volume

        def options(self, *entries: str, keep_modes: bool = False) -> list[str]:
            (tmp_path / "paths").write_bytes(b"".join(os.fsencode(one) + b"\0" for one in entries))
            words = ["--paths", f"{tmp_path}/paths", "--volume", f"{volume}"]
            return [*words, "--keep-modes"] if keep_modes else words

        def file(self, path, text: str = "", mode: int = 0o666):
            """What a filer or an earlier executor has left there."""
            target = volume / str(path).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(mode)
            return target

        def at(self, path):
            return volume / str(path).lstrip("/")

    return Task()


def test_a_placed_file_is_collected_when_changed(container, task, tmp_path):
    path = tmp_path / "etc/in.conf"
    staged = task.file(path, "a\n", 0o664)
    replace = f"cp {path} {path}.new; echo b >> {path}.new; mv {path}.new {path}"
    script = f"stat -c '%F %a' {path}; cat {path}; {replace}"
    ended = container.sh(script, options=task.options(f"p{path}"))
    assert (ended.code, ended.out, ended.err) == (0, b"regular file 664\na\n", b"")
    assert staged.read_text() == "a\nb\n"
    assert [one.name for one in staged.parent.iterdir()] == ["in.conf"]


def test_the_next_executor_appends_to_a_file(new_container, task, tmp_path):
    path = tmp_path / "root/log.txt"
    for name in ("one", "two"):
        executor = new_container(name)
        assert executor.sh(f"echo {name} >> {path}", options=task.options(f"p{path}")).code == 0
        path.unlink()  # each executor has a file system of its own
    assert task.at(path).read_text() == "one\ntwo\n"


def test_the_next_executor_reads_an_outside_stream(new_container, task, tmp_path):
    path, options = tmp_path / "step1.txt", task.options(f"p{tmp_path}/step1.txt")
    assert new_container("one").sh("echo hello", options=[*options, "--stdout", path]).code == 0
    path.unlink()
    assert new_container("two").run("cat", options=[*options, "--stdin", path]).out == b"hello\n"


def test_an_unchanged_file_is_not_copied_back(container, task, tmp_path):
    staged = task.file(tmp_path / "in", "a")
    before = staged.stat()
    assert container.sh(f"cat {tmp_path}/in", options=task.options(f"p{tmp_path}/in")).out == b"a"
    assert (staged.stat().st_ino, staged.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(("kind", "collected"), [("p", []), ("o", ["passwd"])], ids=["stdin", "output"])
def test_image_files_are_collected_only_as_outputs(container, task, tmp_path, kind, collected):
    (tmp_path / "passwd").write_text("root")
    options = task.options(f"p{tmp_path}/passwd", f"{kind}{tmp_path}/passwd")
    assert container.run("cat", options=[*options, "--stdin", tmp_path / "passwd"]).out == b"root"
    assert [path.name for path in task.root.rglob("*") if path.is_file()] == collected


def test_a_removed_file_stays_removed(container, task, tmp_path):
    staged = task.file(tmp_path / "in", "a")
    assert container.sh(f"rm {tmp_path}/in", options=task.options(f"p{tmp_path}/in")).code == 0
    assert not staged.exists()


def test_large_files_and_directories_become_links(container, task, tmp_path):
    with task.file(tmp_path / "big").open("r+b") as big:
        big.truncate(256 * 1024 * 1024 + 1)
    task.file(tmp_path / "ref/genome.fa", "ACGT")
    script = f"stat -L -c %s {tmp_path}/big; cat {tmp_path}/ref/genome.fa; echo x > {tmp_path}/ref/new"
    ended = container.sh(script, options=task.options(f"p{tmp_path}/big", f"p{tmp_path}/ref"))
    assert (ended.code, ended.out) == (0, b"268435457\nACGT")
    assert task.at(tmp_path / "ref/new").read_text() == "x\n"
    assert task.at(tmp_path / "big").stat().st_size == 256 * 1024 * 1024 + 1


def test_a_new_directory_is_collected_completely(container, task, tmp_path):
    path = tmp_path / "results"
    script = f"umask 077; mkdir -p {path}/sub; cd {path}; echo a > a.txt; echo b > sub/b.txt; ln -s a.txt l"
    assert container.sh(script, options=task.options(f"p{path}", f"o{path}")).code == 0
    assert task.at(path / "a.txt").read_text() == "a\n"
    assert task.at(path / "sub/b.txt").stat().st_mode & 0o777 == 0o644
    assert task.at(path / "sub").stat().st_mode & 0o777 == 0o777
    assert task.at(path / "l").readlink() == Path("a.txt")


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
def test_an_unplaceable_file_prevents_the_run(container, task, tmp_path, open_to_everyone):
    open_to_everyone(tmp_path)
    container.dir.chmod(0o777)
    container.message.chmod(0o666)
    (tmp_path / "theirs").mkdir(mode=0o755)
    task.file(tmp_path / "theirs/in", "a")
    options = task.options(f"p{tmp_path}/theirs/in")
    ended = container.sh("echo ran", options=options, user=4321, group=4321, extra_groups=[], cwd="/")
    assert (ended.code, ended.out, container.exit["exit_code"]) == (66, b"", 66)
    assert b"cannot place %b/theirs/in: Permission denied (uid 4321" % os.fsencode(tmp_path) in ended.err
    assert container.read("stderr") == ended.err


LINKS = """
mkdir -p {real}/dir/deep {out}; echo data > {real}/file; echo deep > {real}/dir/deep/file; mkfifo {real}/fifo
ln -s {real}/file {real}/hop; ln -s ../../file {real}/dir/deep/up
ln -s {real}/dir {real}/dir/deep/round; ln -s {real}/hop {out}/hop
ln -s ../real/file {out}/relative; ln -s {real}/dir {out}/dir
ln -s {real}/nothing {out}/dangling; ln -s {real}/fifo {out}/fifo
ln -s inside {out}/link; echo x > {out}/inside
"""


@pytest.mark.parametrize("kind", ["o{out}", "w{out}/*"])
def test_link_targets_of_outputs_are_copied(container, task, tmp_path, kind):
    real, out = tmp_path / "real", tmp_path / "out"
    options = task.options(kind.format(out=out), f"s{out}")
    assert container.sh(LINKS.format(real=real, out=out), options=options).code == 0
    copied = {
        str(path.relative_to(task.root)) for path in task.root.rglob("*") if not S_ISDIR(path.lstat().st_mode)
    }
    inside = {
        f"{real}/{name}".lstrip("/")
        for name in ("hop", "file", "dir/deep/file", "dir/deep/up", "dir/deep/round")
    }
    assert copied == inside
    assert task.at(real / "hop").read_text() == task.at(real / "file").read_text() == "data\n"
    assert not task.at(real / "hop").is_symlink()


def test_link_may_be_named_like_a_pattern(container, task, tmp_path):
    out, real = tmp_path / "out", tmp_path / "real"
    script = f"mkdir {out}; echo data > {real}; ln -s {real} '{out}/sample[1].txt'"
    assert container.sh(script, options=task.options(f"s{out}", f"w{out}/sample[1].txt")).code == 0
    assert task.at(real).read_text() == "data\n"


def test_links_that_are_no_outputs_are_left_alone(container, task, tmp_path):
    out = tmp_path / "out"
    target = tmp_path / "real"
    script = f"mkdir {out}; echo data > {target}; ln -s {target} {out}/link; ln -s {target} {out}/o.txt"
    assert container.sh(script, options=task.options(f"s{out}", f"w{out}/*.gz", f"o{out}/other")).code == 0
    assert list(task.root.iterdir()) == []


@pytest.mark.parametrize(("script", "code"), [("exit 0", 74), ("exit 3", 3)])
def test_an_uncollectable_output_exits_74(container, task, tmp_path, script, code):
    (tmp_path / "source").write_text("x")
    options = ["--paths", f"{tmp_path}/paths", "--volume", "/proc"]
    task.options(f"p{tmp_path}/made")
    ended = container.sh(f"echo x > {tmp_path}/made; {script}", options=options)
    assert ended.code == container.exit["exit_code"] == code
    assert b"poiesis: cannot copy %b/made" % os.fsencode(tmp_path) in ended.err
    assert ended.err == container.read("stderr")


def test_collection_follows_no_planted_link(container, task, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    task.at(tmp_path).mkdir(parents=True)
    task.at(tmp_path / "etc").symlink_to(elsewhere)
    (tmp_path / "etc").mkdir()
    ended = container.sh(f"echo x > {tmp_path}/etc/f", options=task.options(f"p{tmp_path}/etc/f"))
    assert ended.code in {66, 74}
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_collected_after_a_stop_signal(container, task, tmp_path):
    process = container.start(
        "sh",
        "-c",
        f"echo x > {tmp_path}/made; echo ready; sleep 60",
        options=task.options(f"p{tmp_path}/made"),
    )
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(10) == 143
    assert list(task.root.iterdir()) == []


def _modes(tree) -> dict[str, int]:
    found = (path for path in tree.rglob("*") if not path.is_symlink())
    return {str(path.relative_to(tree)): path.lstat().st_mode & 0o777 for path in found}


def test_share_opens_own_files_to_all_users(container, task, tmp_path):
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    outside.write_text("secret")
    outside.chmod(0o600)
    script = f"""
        umask 077; mkdir -p {tree}/a/b {tree}/locked; echo x > {tree}/a/b/file; echo x > {tree}/a/script
        chmod 700 {tree}/a/script; echo x > {tree}/locked/file; chmod 000 {tree}/locked/file {tree}/locked
        ln -s {outside} {tree}/link; mkfifo {tree}/fifo
    """
    assert container.sh(script, options=task.options(f"s{tree}", f"s{tmp_path}/missing")).code == 0
    assert tree.stat().st_mode & 0o777 == 0o777
    assert _modes(tree) == {
        "a": 0o777, "a/b": 0o777, "a/b/file": 0o644, "a/script": 0o755, "fifo": 0o600,
        "locked": 0o777, "locked/file": 0o444,
    }  # fmt: skip
    assert outside.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("end", "modes"),
    [
        (["exit 0"], {"key": 0o600, "d": 0o700}),
        (["exit 3", "--ignore-error"], {"key": 0o600, "d": 0o700}),
        (["exit 3", "--on-failure=continue"], {"key": 0o644, "d": 0o777}),
    ],
    ids=["next executor", "ignored failure", "failure"],
)
def test_modes_stay_as_they_are_until_filers_read(container, task, tmp_path, end, modes):
    tree = tmp_path / "tree"
    script = f"mkdir -p {tree}/d; touch {tree}/key; chmod 600 {tree}/key; chmod 700 {tree}/d; {end[0]}"
    container.sh(script, options=[*task.options(f"s{tree}", keep_modes=True), *end[1:]])
    assert _modes(tree) == modes


@pytest.mark.skipif(os.getuid() != 0, reason="giving files away takes root")
def test_root_shares_files_of_other_users(container, task, tmp_path):
    tree = tmp_path / "tree"
    script = f"mkdir -p {tree}/d; cd {tree}; echo x > d/f; chown -R 1234:1234 d; chmod 600 d/f; chmod 700 d"
    assert container.sh(script, options=task.options(f"s{tree}")).code == 0
    assert _modes(tree) == {"d": 0o777, "d/f": 0o644}
    assert (tree / "d/f").stat().st_uid == 1234


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
def test_an_executor_may_have_any_uid(container, tmp_path, open_to_everyone):
    open_to_everyone(tmp_path)
    container.dir.chmod(0o777)
    container.runs.chmod(0o755)
    container.message.chmod(0o666)
    ended = container.sh("id -u", user=4321, group=4321, extra_groups=[], cwd="/")
    assert (ended.code, ended.out, ended.err) == (0, b"4321\n", b"")
    assert container.exit["exit_code"] == 0
    assert container.message.read_bytes() == container.read("exit.json")


def test_deep_trees_are_shared(container, task, tmp_path):
    code = (
        "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(1500):\n os.mkdir('d', 0o700); os.chdir('d')"
    )
    (tmp_path / "tree").mkdir()
    try:
        assert (
            container.run(
                sys.executable, "-c", code, tmp_path / "tree", options=task.options(f"s{tmp_path}/tree")
            ).code
            == 0
        )
        found = subprocess.run(
            ["find", tmp_path / "tree", "-perm", "777"], check=True, capture_output=True
        ).stdout
        assert found.count(b"\n") == 1501
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)
