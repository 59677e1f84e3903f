"""What happens between the end of the process and exit.json: memory, --collect, --share."""

import os
import subprocess
import sys

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
def test_an_out_of_memory_kill_always_ends_in_137(container, counter, options, end):
    retry = ["--retry-exit-code=75", "--retry-attempts=3", "--retry-killed"]
    ended = container.sh(f"echo ran; {counter(4)}; {end}", options=[*options, *retry])
    assert (ended.code, ended.out) == (137, b"ran\n")
    assert container.exit["exit_code"] == 137
    assert container.exit["oom"] is True
    assert not container.has("failed")
    assert container.sh("echo again", options=options).code == 137  # a second start says the same


@pytest.mark.parametrize("end", ["exit 0", "exit 137", "kill -9 $$"])
def test_kills_of_an_earlier_time_are_not_ours(container, counter, end):
    ended = container.sh(end)
    assert container.exit["oom"] is False
    assert ended.code == container.exit["exit_code"] == (0 if end == "exit 0" else 137)


def test_a_counter_that_lags_behind_the_kill_is_waited_for(container, counter):
    # The main process dies of SIGKILL; somebody else raises the counter a little later.
    process = container.start("sh", "-c", "echo ready; sleep 0.2; kill -9 $$")
    assert process.stdout.readline() == b"ready\n"
    subprocess.run(["sh", "-c", f"sleep 0.21; {counter(4)}"], check=True)
    assert process.wait(10) == 137
    assert container.exit["signal"] == 9
    assert container.exit["oom"] is True


def test_a_container_without_cgroup_files_knows_of_no_kill(container):
    assert container.sh("kill -9 $$").code == 137
    assert container.exit["oom"] is False


def test_collect_copies_a_file_with_its_parents(container, tmp_path):
    source, target = tmp_path / "etc/out.bin", tmp_path / "collect/etc/out.bin"
    source.parent.mkdir()
    ended = container.sh(
        f"umask 077; head -c 200000 /dev/urandom > {source}; chmod 700 {source}; exit 3",
        options=["--collect", f"{source}={target}"], umask=0o077,
    )  # fmt: skip
    assert ended.code == 3
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o744
    assert [path.stat().st_mode & 0o777 for path in target.parents[:2]] == [0o777, 0o777]
    assert [path.name for path in target.parent.iterdir()] == ["out.bin"]


def test_collect_follows_symlinks_and_replaces_what_is_there(container, tmp_path):
    (tmp_path / "real").write_text("new")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "target").write_text("older and longer")
    assert container.run("true", options=["--collect", f"{tmp_path}/link={tmp_path}/target"]).code == 0
    assert (tmp_path / "target").read_text() == "new"
    assert not (tmp_path / "target").is_symlink()


@pytest.mark.parametrize("source", ["missing", "directory", "dangling", "fifo"])
def test_collect_leaves_alone_what_is_no_file(container, tmp_path, source):
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    assert container.run("true", options=["--collect", f"{tmp_path}/{source}={tmp_path}/target"]).code == 0
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["a=b", "x=/f", "x=/y=/f", "=", "=/="])
def test_collect_divides_a_path_with_equals_signs_that_the_destination_repeats(container, tmp_path, name):
    source, target = tmp_path / "src" / name, tmp_path / f"collect{tmp_path}/src" / name
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("x")
    assert container.run("true", options=["--collect", f"{source}={target}"]).code == 0
    assert target.read_text() == "x"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 74), ("exit 3", 3)])
def test_collect_that_fails_is_told_and_costs_the_exit_code(container, tmp_path, script, code):
    (tmp_path / "source").write_text("x")
    ended = container.sh(script, options=["--collect", f"{tmp_path}/source=/proc/nowhere/target"])
    assert ended.code == container.exit["exit_code"] == code
    assert b"poiesis: cannot copy " in ended.err
    assert ended.err == container.read("stderr")


def test_nothing_is_collected_once_the_pod_is_going_away(container, tmp_path):
    (tmp_path / "source").write_text("x")
    process = container.start(
        "sh", "-c", "echo ready; sleep 60", options=["--collect", f"{tmp_path}/source={tmp_path}/target"]
    )
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(10) == 143
    assert not (tmp_path / "target").exists()


def test_share_opens_what_this_uid_left_to_every_other(container, tmp_path):
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    outside.write_text("secret")
    outside.chmod(0o600)
    script = f"""
        umask 077; mkdir -p {tree}/a/b {tree}/locked; echo x > {tree}/a/b/file; echo x > {tree}/a/script
        chmod 700 {tree}/a/script; echo x > {tree}/locked/file; chmod 000 {tree}/locked/file {tree}/locked
        ln -s {outside} {tree}/link; mkfifo {tree}/fifo
    """
    assert container.sh(script, options=["--share", tree, "--share", tmp_path / "missing"]).code == 0
    modes = {
        str(path.relative_to(tree)): path.lstat().st_mode & 0o777
        for path in tree.rglob("*")
        if not path.is_symlink()
    }
    assert tree.stat().st_mode & 0o777 == 0o777
    assert modes == {
        "a": 0o777, "a/b": 0o777, "a/b/file": 0o644, "a/script": 0o755, "fifo": 0o600,
        "locked": 0o777, "locked/file": 0o444,
    }  # fmt: skip
    assert outside.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="giving files away takes root")
def test_share_leaves_alone_what_others_own(container, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/theirs").write_text("x")
    (tmp_path / "tree/theirs").chmod(0o600)
    os.chown(tmp_path / "tree/theirs", 1234, 1234)
    assert container.run("true", options=["--share", tmp_path / "tree"]).code == 0
    assert (tmp_path / "tree/theirs").stat().st_mode & 0o777 == 0o600


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


def test_deep_trees_are_shared(container, tmp_path):
    code = (
        "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(1500):\n os.mkdir('d', 0o700); os.chdir('d')"
    )
    (tmp_path / "tree").mkdir()
    try:
        assert (
            container.run(
                sys.executable, "-c", code, tmp_path / "tree", options=["--share", tmp_path / "tree"]
            ).code
            == 0
        )
        found = subprocess.run(
            ["find", tmp_path / "tree", "-perm", "777"], check=True, capture_output=True
        ).stdout
        assert found.count(b"\n") == 1501
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)
