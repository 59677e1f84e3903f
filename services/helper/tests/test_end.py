"""Signals, and what is left behind when the process has ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        open(sys.argv[1], "w").write(str(os.getpid()))
        print("daemon", flush=True)
        time.sleep(60)
    os._exit(0)
while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()):
    time.sleep(0.01)
sys.exit(5)
"""


GROUP = """
import os, signal, sys, time
read_end, write_end = os.pipe()
inner = os.fork()
def got_it(*_):
    if inner:
        os.waitpid(inner, 0)
        os._exit(9)
    os.write(1, b"inner\\n")
    os._exit(0)
signal.signal(int(sys.argv[1]), got_it)
if inner:
    os.read(read_end, 1)
    os.write(1, b"ready\\n")
else:
    os.write(write_end, b".")
while True:
    time.sleep(0.01)
"""


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_are_forwarded_to_the_process_group(container, eventually, name):
    number = getattr(signal, name)
    process = container.start(sys.executable, "-c", GROUP, str(int(number)))
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(10) == 9
    assert process.stdout.read() == b"inner\n"
    assert container.exit["term"] is (name == "SIGTERM")


@pytest.mark.parametrize(
    ("options", "script", "code", "recorded"),
    [
        ([], "exit 3", 3, 3),
        (["--on-failure", "continue"], "exit 3", 3, 3),
        (["--ignore-error"], "exit 3", 0, 3),
        ([], "exit 0", 0, 0),
        ([], "trap - TERM; kill -TERM $$", 143, 143),
    ],
)
def test_a_stop_signal_keeps_the_exit_code(container, options, script, code, recorded):
    process = container.start(
        "sh", "-c", f"trap '{script}' TERM; echo ready; while :; do sleep 0.01; done", options=options
    )
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(10) == code
    assert (container.exit["exit_code"], container.exit["term"]) == (recorded, True)
    assert not container.has("failed")


def test_processes_ignoring_sigterm_are_killed_in_time(container):
    process = container.start(
        "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", options=["--grace", "4"]
    )
    assert process.stdout.readline() == b"ready\n"
    begin = time.monotonic()
    process.terminate()
    assert process.wait(10) == 137
    assert 0.9 < time.monotonic() - begin < 4
    record = container.exit
    assert (record["exit_code"], record["signal"], record["term"], record["oom"]) == (137, 9, True, False)


def test_daemons_that_were_left_behind_are_killed(container, tmp_path):
    ended = container.run(sys.executable, "-c", DAEMON, tmp_path / "pid")
    assert (ended.code, ended.out) == (5, b"daemon\n")
    assert _state(int((tmp_path / "pid").read_text())) is None


def test_zombies_are_reaped_while_the_process_runs(container, tmp_path, eventually):
    script = f"(sh -c 'echo $$ > {tmp_path}/pid; exec sleep 0.1' &) ; sleep 60"
    process = container.start("sh", "-c", script)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    eventually(lambda: _state(int((tmp_path / "pid").read_text())) is None)
    process.terminate()
    process.wait(10)


def test_nothing_but_its_own_descendants_is_killed(container):
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        container.sh("sleep 60 & exit 0")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.fixture
def pid_namespace(container):
    """The container with the helper as PID 1 of a PID namespace of its own."""
    container.prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    tried = subprocess.run([*container.prefix, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"PID 1 IS NOT TESTED: no PID namespace to be had: {tried.stderr.decode().strip()}")
    return container


def test_pid_1_kills_everything_in_its_namespace(pid_namespace, tmp_path):
    show = f"{sys.executable} -c \"$DAEMON\" {tmp_path}/pid; echo $PPID; ls /proc | grep -c '^[0-9]'; exit 5"
    ended = pid_namespace.sh(show, env={**os.environ, "DAEMON": DAEMON})
    daemon, parent, processes = ended.out.split()
    assert (ended.code, daemon, parent) == (5, b"daemon", b"1")
    assert int(processes) >= 4  # helper, sh, the daemon, ls
    assert pid_namespace.exit["exit_code"] == 5


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGRTMIN+3", "SIGWINCH"])
def test_any_outside_signal_stops_pid_1(pid_namespace, name):
    number = signal.SIGRTMIN + 3 if name == "SIGRTMIN+3" else getattr(signal, name)
    program = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(6))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.01)\n"
    )
    process = pid_namespace.start(sys.executable, "-c", program)
    assert process.stdout.readline() == b"ready\n"
    (helper,) = _children(process.pid)
    os.kill(helper, number)
    assert process.wait(10) == 6
    assert pid_namespace.exit["term"] is True


def test_an_inside_signal_does_not_stop_pid_1(pid_namespace):
    ended = pid_namespace.sh("trap 'echo got it' USR1; kill -USR1 1; sleep 0.2; exit 3")
    assert (ended.code, ended.out, pid_namespace.exit["term"]) == (3, b"got it\n", False)


QUEUE = """
import ctypes, struct, sys
number = int(sys.argv[1])
info = struct.pack("=iiiiii", number, 0, -1, 0, 0, 0) + bytes(104)  # claims sender 0
ctypes.CDLL(None).syscall(129, 1, number, info)  # rt_sigqueueinfo on amd64
"""
SENDERS = {
    "kill": "kill -{signal} 1",
    "parent": "kill -{signal} $PPID",
    "queued": f"{sys.executable} -c '{QUEUE}' {{number}}",
}


@pytest.mark.parametrize("name", ["TERM", "HUP", "QUIT", "USR1", "KILL", "STOP"])
@pytest.mark.parametrize("sender", ["kill", "parent", "queued"])
def test_program_that_signals_pid_1_is_not_stopped(pid_namespace, name, sender):
    number = getattr(signal, f"SIG{name}")
    send = SENDERS[sender].format(signal=name, number=int(number))
    ended = pid_namespace.sh(f"{send}; sleep 0.2; echo after; exit 3")
    assert (ended.code, ended.out) == (3, b"after\n")
    assert pid_namespace.exit["term"] is False


def test_an_inside_signal_reaches_its_handler(pid_namespace):
    children = "trap 'echo child' TERM; sleep 0.3; exit 0"
    ended = pid_namespace.sh(
        f"trap 'echo got it' TERM; sh -c \"{children}\" & kill -TERM 1; sleep 0.1; wait; exit 3"
    )
    assert (ended.code, ended.out, pid_namespace.exit["term"]) == (3, b"got it\n", False)


def test_pkill_does_not_stop_pid_1(pid_namespace):
    matches = "tr '\\0' ' ' < $pid/cmdline | grep -q 'sleep 7[7]' && [ ${pid#/proc/} != $$ ]"
    kill = f"for pid in /proc/[0-9]*; do {matches} && kill ${{pid#/proc/}}; done 2>/dev/null"
    script = f"sleep 77 & sleep 0.1; {kill}; sleep 0.2; echo after"
    ended = pid_namespace.sh(script)
    assert (ended.code, ended.out, pid_namespace.exit["term"]) == (0, b"after\n", False)


TRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
target = os.getppid()
attached = libc.ptrace(16, target, None, None)
print("attach", attached, os.strerror(ctypes.get_errno()))
try:
    print("open", os.open(f"/proc/{target}/fd/1", os.O_WRONLY))
except PermissionError as error:
    print("open", error.strerror)
"""
# As a container's root: without the capabilities that runtimes do not give.
_WITHOUT = "-sys_ptrace,-sys_admin,-dac_read_search"
UNPRIVILEGED = ["setpriv", "--no-new-privs", f"--bounding-set={_WITHOUT}", f"--inh-caps={_WITHOUT}"]


@pytest.mark.skipif(os.getuid() != 0, reason="giving up capabilities takes root")
@pytest.mark.parametrize("uid", [0, 4321])
def test_the_program_cannot_trace_the_helper(container, uid, open_to_everyone, tmp_path):
    open_to_everyone(tmp_path)
    container.dir.chmod(0o777)
    container.message.chmod(0o666)
    container.prefix = UNPRIVILEGED
    who = {} if uid == 0 else {"user": uid, "group": uid, "extra_groups": []}
    if uid:
        container.prefix = []
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")  # one that other users can run
    if python is None:
        pytest.skip("PTRACE IS NOT TESTED: no Python of the system")
    ended = container.run(python, "-c", TRACE, cwd="/", **who)
    assert ended.err == b""
    assert ended.out == b"attach -1 Operation not permitted\nopen Permission denied\n"


def test_pid_1_kills_what_is_deaf_to_sigterm(pid_namespace):
    process = pid_namespace.start(
        "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", options=["--grace=4"]
    )
    assert process.stdout.readline() == b"ready\n"
    (helper,) = _children(process.pid)
    os.kill(helper, signal.SIGTERM)
    assert process.wait(10) == 137
    assert (pid_namespace.exit["signal"], pid_namespace.exit["term"]) == (9, True)
