"""exit.json has what the container used, from files of cgroup v2 and v1 as the kernel writes them."""

import os
import sys

import pytest

V2 = {
    "cgroup.type": "domain\n",
    "memory.peak": "209715200\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\n",
    "io.stat": "8:0 rbytes=4096 wbytes=100 rios=1 wios=1 dbytes=0\n259:0 rbytes=1 wbytes=2 rios=1\n",
}
V1 = {
    "memory/memory.max_usage_in_bytes": "209715200\n",
    "cpuacct/cpuacct.usage": "2500000999\n",
    "cpuacct/cpuacct.usage_sys": "500000000\n",
    "blkio/blkio.throttle.io_service_bytes": (
        "8:0 Read 4096\n8:0 Write 100\n8:0 Sync 7\n8:0 Total 4196\n259:0 Read 1\n259:0 Write 2\nTotal 4199\n"
    ),
}
MEASURED = {
    "user_us": 2_000_000,
    "sys_us": 500_000,
    "peak_memory_bytes": 209_715_200,
    "read_bytes": 4097,
    "written_bytes": 102,
}
OPTIONAL = {"peak_memory_bytes", "read_bytes", "written_bytes", "disk_used_bytes"}


def put(container, files):
    for name, text in files.items():
        (container.cgroup / name).parent.mkdir(parents=True, exist_ok=True)
        (container.cgroup / name).write_text(text)


def measured(container):
    return {key: value for key, value in container.exit.items() if key in MEASURED}


@pytest.mark.parametrize("files", [V2, V1], ids=["cgroup v2", "cgroup v1"])
def test_usage_is_that_of_the_cgroup(container, files):
    put(container, files)
    container.sh("exit 3")
    assert measured(container) == MEASURED


@pytest.mark.parametrize("files", [V2, V1], ids=["cgroup v2", "cgroup v1"])
@pytest.mark.parametrize("text", ["", "max\n", "-1\n", "9223372036854775808\n"])
def test_a_counter_without_a_number_is_left_out(container, files, text):
    put(container, files)
    (container.cgroup / next(name for name in files if name.startswith("memory"))).write_text(text)
    container.sh("exit 3")
    assert measured(container) == {key: MEASURED[key] for key in MEASURED if key != "peak_memory_bytes"}


def test_sampled_kernel_time_is_at_most_the_total(container):
    put(container, V1 | {"cpuacct/cpuacct.usage": "400000000\n"})
    container.sh("exit 3")
    assert (container.exit["user_us"], container.exit["sys_us"]) == (0, 400_000)


@pytest.mark.parametrize(
    ("files", "name"), [(V2, "io.stat"), (V1, "blkio/blkio.throttle.io_service_bytes")], ids=["v2", "v1"]
)
def test_an_unused_block_device_has_zero_bytes(container, files, name):
    put(container, files | {name: ""})
    container.sh("exit 3")
    assert (container.exit["read_bytes"], container.exit["written_bytes"]) == (0, 0)


def test_counters_of_the_root_cgroup_are_not_used(container):
    put(container, {name: text for name, text in V2.items() if name != "cgroup.type"})
    container.sh("exit 3")
    assert OPTIONAL.isdisjoint(container.exit)
    assert container.exit["user_us"] < 2_000_000


def test_cpu_time_without_a_cgroup_is_that_of_reaped_processes(container):
    container.run(sys.executable, "-c", "sum(range(3_000_000))")
    assert 0 < container.exit["user_us"] < 10_000_000
    assert OPTIONAL.isdisjoint(container.exit)


@pytest.fixture
def volume(container, tmp_path):
    """Return the volume of a container that counts it at its end."""
    (tmp_path / "paths").touch()
    volume = tmp_path / "volume"
    (volume / "deep").mkdir(parents=True)
    container.options = ["--paths", tmp_path / "paths", "--volume", volume]
    return volume


def write(path, size):
    with path.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_disk_is_what_the_files_of_the_volume_occupy(container, volume, tmp_path):
    write(volume / "deep/file", 1 << 20)
    os.link(volume / "deep/file", volume / "again")
    write(tmp_path / "elsewhere", 4 << 20)
    (volume / "link").symlink_to(tmp_path / "elsewhere")
    os.truncate(os.open(volume / "sparse", os.O_CREAT | os.O_WRONLY), 1 << 30)
    container.sh("exit 0")
    assert 1 << 20 <= container.exit["disk_used_bytes"] < (1 << 20) + 64 * 1024


def test_disk_is_not_counted_after_a_stop_signal(container, volume, eventually):
    process = container.start("sleep", "60")
    eventually(lambda: container.has("started"))
    process.terminate()
    process.wait(10)
    assert container.exit["term"] is True
    assert "disk_used_bytes" not in container.exit
