"""The docker daemon: the running one, or one that the lab starts and leaves running."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from poiesis_lab import cache, docker, host
from poiesis_lab.cache import RECIPES
from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, run, step, wait_until

PID_FILE = Path("/var/run/docker.pid")
SOCKET = Path("/var/run/docker.sock")
CONTAINERD_PID_FILE = Path("/var/run/docker/containerd/containerd.pid")
RUNTIME = "within-bounds"
OWN = "poiesis.lab=started"  # the label of a daemon that the lab started
_START_S = 60
_STOP_S = 30
_LOG_BYTES = 10_000_000


def ensure() -> None:
    """Return when a docker daemon responds and meets the lab's needs; else raise LabError with advice."""
    if not docker.answers():
        _start()
    _check_runtime()


def _start() -> None:
    if os.environ.get("DOCKER_HOST"):
        raise LabError(
            f"no docker daemon answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: start it, or unset it"
        )
    if SOCKET.exists() and not os.access(SOCKET, os.W_OK):
        raise LabError(
            f"this user may not use the running docker daemon ({SOCKET} is not writable).\n"
            "Add the user to the group docker (`sudo usermod -aG docker $USER`, then log in again),"
            " or set DOCKER_HOST to a daemon of your own."
        )
    running = _live_pid(PID_FILE, "dockerd")
    if running is not None:
        wait_until(docker.answers, f"an answer from dockerd (process {running})", seconds=30)
        return
    refusal = host.may_bootstrap()
    if refusal is not None:
        raise LabError(
            f"no docker daemon answers, and the lab starts none because {refusal}.\n"
            "Start docker (`systemctl start docker`), and see that `docker version` answers this user."
        )
    host.need_programs("dockerd")
    with step("start dockerd"):
        if Path("/run/systemd/system").exists():
            run(["systemctl", "start", "docker"])
        else:
            _remove_stale_files()
            _spawn()


def _spawn() -> None:
    log = cache.directory() / "log" / "dockerd.log"
    log.parent.mkdir(exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.unlink()
    command = [host.find("dockerd") or "dockerd", "--pidfile", str(PID_FILE), "--label", OWN]
    if host.lacks(host.CAP_SYS_RESOURCE):
        command += ["--add-runtime", f"{RUNTIME}={_runtime()}", "--default-runtime", RUNTIME]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )

    def up() -> bool:
        if process.poll() is not None:
            raise LabError(f"dockerd ended with {process.returncode}; its log is {log}\n{_tail(log)}")
        return docker.answers(2)

    wait_until(up, "an answer from dockerd", seconds=_START_S, hint=lambda: f"its log is {log}\n{_tail(log)}")
    process.returncode = 0  # it outlives this process; otherwise Popen warns about a running child


def _runtime() -> Path:
    """Return the runtime wrapper, at a path that survives a moved or removed checkout."""
    source = RECIPES / "runc_within_bounds.py"
    target = cache.directory() / "bin" / f"runc-within-bounds-{cache.hash_of([], [source])}"
    if not target.exists():
        with cache.aside(target) as path:
            shutil.copy(source, path)
            path.chmod(0o755)
    return target


def _check_runtime() -> None:
    """Reject a daemon that would fail later, in runc, with an obscure error."""
    if not host.lacks(host.CAP_SYS_RESOURCE) or os.environ.get("DOCKER_HOST"):
        return
    runtime = docker.docker("info", "--format", "{{.DefaultRuntime}}", timeout=30)
    if runtime == "runc":
        raise LabError(
            "without CAP_SYS_RESOURCE the running docker daemon cannot start privileged containers.\n"
            "Stop it; the lab then starts one that can."
        )


def _live_pid(pid_file: Path, program: str) -> int | None:
    """Return the process of `pid_file` if it is alive and still `program`: process ids are reused."""
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid if name == program else None


def stop_own() -> None:
    """Stop the docker daemon if the lab started it and it has no container."""
    pid = _live_pid(PID_FILE, "dockerd")
    if pid is None or not is_own():
        return
    if docker.docker("ps", "--all", "--quiet"):
        report("lab: keeping the docker daemon: it has other containers")
        return
    with step("stop dockerd"):
        os.kill(pid, signal.SIGTERM)
        wait_until(
            lambda: _live_pid(PID_FILE, "dockerd") is None and not Path(f"/proc/{pid}").exists(),
            f"the end of dockerd (process {pid})",
            seconds=_STOP_S,
        )
    _remove_stale_files()


def is_own() -> bool:
    """Return whether the docker daemon that runs here was started by the lab."""
    pid = _live_pid(PID_FILE, "dockerd")
    return pid is not None and started_by_lab(Path(f"/proc/{pid}/cmdline").read_bytes())


def started_by_lab(command_line: bytes) -> bool:
    """Return whether the arguments are the lab's; earlier labs set only the runtime, no label."""
    arguments = command_line.decode(errors="replace").split("\0")
    return OWN in arguments or any(one.startswith(f"{RUNTIME}=") for one in arguments)


def _remove_stale_files() -> None:
    """Remove files of a killed dockerd that would make a new one fail."""
    if PID_FILE.exists():
        report(f"lab: removing {PID_FILE} of a dead dockerd")
        PID_FILE.unlink()
    SOCKET.unlink(missing_ok=True)
    if _live_pid(CONTAINERD_PID_FILE, "containerd") is None:
        CONTAINERD_PID_FILE.unlink(missing_ok=True)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
