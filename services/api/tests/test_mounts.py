import pytest

from poiesis_api.mounts import MountPlan, is_system_directory, is_unmountable, outermost, plan_mounts
from poiesis_models.tes import TesTaskRequest


def task(*, inputs=(), outputs=(), volumes=(), disk=None, **streams):
    return TesTaskRequest.model_validate(
        {
            "executors": [{"image": "i", "command": ["c"], **streams}],
            "inputs": [{"url": "s3://b/k", **one} for one in inputs],
            "outputs": [{"url": "s3://b/k", **one} for one in outputs],
            "volumes": list(volumes),
            "resources": {"disk_gb": disk} if disk else None,
        }
    )


def file(path):
    return {"path": path, "type": "FILE"}


def directory(path):
    return {"path": path, "type": "DIRECTORY"}


def mounted(*directories, made=None, **others):
    return MountPlan(directories=directories, made=directories if made is None else made, **others)


CASES = [
    ("nothing", task(), MountPlan()),
    ("streams alone need no volume", task(stdout="/out/o"), MountPlan()),
    ("disk alone mounts nothing", task(disk=1), MountPlan()),
    ("the directory of an input", task(inputs=[file("/data/a")]), mounted("/data")),
    ("an input without a type is a file", task(inputs=[{"path": "/data/a"}]), mounted("/data")),
    (
        "a bucket or a slash makes it a directory",
        task(inputs=[{"path": "/ref", "url": "s3://b/"}]),
        mounted("/ref"),
    ),
    ("a slash of its own as well", task(inputs=[{"path": "/ref/"}]), mounted("/ref")),
    ("escapes are removed", task(outputs=[{"path": r"/run\[1\]/a\*"}]), mounted("/run[1]")),
    ("an input that is a directory", task(inputs=[directory("/data/a")]), mounted("/data/a")),
    ("a trailing slash", task(inputs=[directory("/data/a/")]), mounted("/data/a")),
    ("the directory of an output", task(outputs=[file("/out/b")]), mounted("/out")),
    ("an output that is a directory", task(outputs=[directory("/out")]), mounted("/out")),
    ("an output with a trailing slash", task(outputs=[{"path": "/out/"}]), mounted("/out")),
    ("a volume", task(volumes=["/scratch/"]), mounted("/scratch")),
    (
        "directories in others are made but not mounted",
        task(inputs=[file("/a/b/c/d")], outputs=[file("/a/x")], volumes=["/a/b", "/ab"]),
        mounted("/a", "/ab", made=("/a", "/a/b", "/a/b/c", "/ab")),
    ),
    (
        "the literal directory of a pattern",
        task(outputs=[{"path": "/work/x/*/y?.txt", "path_prefix": "/work"}]),
        mounted("/work/x"),
    ),
    (
        "Nextflow",
        task(inputs=[file("/work/.command.sh")], outputs=[{"path": "/work/.exitcode"}], workdir="/work"),
        mounted("/work"),
    ),
    (
        "snakemake",
        task(inputs=[{"path": "/tmp/run_snakemake.sh", "content": "x"}], workdir="/tmp"),
        mounted("/tmp"),
    ),
    (
        "cwl-tes",
        task(
            inputs=[file("/var/lib/cwl/stg1/x")],
            outputs=[file("/AbCdEf/out.txt"), directory("/AbCdEf")],
            stdout="/AbCdEf/out.txt",
        ),
        mounted("/AbCdEf", "/var/lib/cwl/stg1"),
    ),
    (
        "inputs in system directories are mounted one by one",
        task(inputs=[file("/in"), file("/etc/app/conf"), file("/root/.netrc"), file("/usr/share/x/y")]),
        MountPlan(files=("/etc/app/conf", "/in", "/root/.netrc", "/usr/share/x/y")),
    ),
    (
        "outputs in system directories are collected",
        task(outputs=[file("/out.txt"), file("/var/log/l"), file("/opt/o"), file("/run/r"), file("/home/h")]),
        MountPlan(collected=("/home/h", "/opt/o", "/out.txt", "/run/r", "/var/log/l")),
    ),
    (
        "an output that is an input in a system directory needs no collecting",
        task(inputs=[file("/etc/a")], outputs=[file("/etc/a")]),
        MountPlan(files=("/etc/a",)),
    ),
    (
        "directories below system directories are mounted",
        task(volumes=["/opt/data", "/usr/share/x", "/var/lib/y", "/home/me"]),
        mounted("/home/me", "/opt/data", "/usr/share/x", "/var/lib/y"),
    ),
    (
        "files in such a directory are in its mount",
        task(volumes=["/usr/share/x"], inputs=[file("/usr/share/x/in")], outputs=[file("/usr/share/x/out")]),
        mounted("/usr/share/x"),
    ),
    (
        "streams lie in the volume if there is one",
        task(disk=1, stdin="/i/a", stdout="/o/a", stderr="/err"),
        mounted("/i", "/o"),
    ),
]


@pytest.mark.parametrize(("request_", "plan"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_mounted(request_, plan):
    assert plan_mounts(request_) == plan


@pytest.mark.parametrize(
    "path", ["/", "/bin", "/etc", "/etc/a/b", "/lib64", "/usr/local/x", "/var", "/var/lib"]
)
def test_system_directories(path):
    assert is_system_directory(path)


@pytest.mark.parametrize("path", ["/data", "/library", "/var/lib/x", "/opt/x", "/tmp", "/mnt", "/etcetera"])
def test_other_directories(path):
    assert not is_system_directory(path)
    assert not is_unmountable(path)


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr", "/usr/bin", "/usr/local/lib", "/var/log", "/root", "/proc/x", "/sys/fs"]
)
def test_directories_that_no_volume_can_be(path):
    assert is_unmountable(path)


def test_many_directories_are_planned_in_no_time():
    paths = [f"/data/{number}" for number in range(50_000)]
    assert len(outermost([*paths, *(f"{path}/in" for path in paths)])) == 50_000
