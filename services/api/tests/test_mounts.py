import pytest

from poiesis_api.mounts import MountPlan, few, is_system_directory, is_unmountable, outermost, plan_mounts
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
    """Directories that the task names itself."""
    return MountPlan(directories=directories, made=directories if made is None else made, **others)


def filled(*directories, made=None, **others):
    """Directories that the task names only through a file in them."""
    return mounted(*directories, made=made, filled=directories, **others)


CASES = [
    ("nothing", task(), MountPlan()),
    ("streams of one executor need no volume", task(stdout="/out/o"), MountPlan()),
    ("disk alone mounts nothing", task(disk=1), MountPlan()),
    ("the directory of an input", task(inputs=[file("/data/a")]), filled("/data")),
    ("an input without a type is a file", task(inputs=[{"path": "/data/a"}]), filled("/data")),
    (
        "unless its URL is a directory's",
        task(inputs=[{"path": "/data/a", "url": "s3://b/a/"}, {"path": "/x/p", "url": "https://h/"}]),
        MountPlan(directories=("/data/a", "/x"), filled=("/x",), made=("/data/a", "/x")),
    ),
    (
        "a bucket or a slash makes it a directory",
        task(inputs=[{"path": "/ref", "url": "s3://b/"}]),
        mounted("/ref"),
    ),
    ("a slash of its own as well", task(inputs=[{"path": "/ref/"}]), mounted("/ref")),
    ("an input that is a directory", task(inputs=[directory("/data/a")]), mounted("/data/a")),
    ("a trailing slash", task(inputs=[directory("/data/a/")]), mounted("/data/a")),
    ("the directory of an output", task(outputs=[file("/out/b")]), filled("/out")),
    ("an output that is a directory", task(outputs=[directory("/out")]), mounted("/out")),
    ("an output with a trailing slash", task(outputs=[{"path": "/out/"}]), mounted("/out")),
    ("an output with escapes", task(outputs=[file("/out/a\\[1\\]/b\\*c")]), filled("/out/a[1]")),
    ("a volume", task(volumes=["/scratch/"]), mounted("/scratch")),
    (
        "directories in others are made but not mounted",
        task(inputs=[file("/a/b/c/d")], outputs=[file("/a/x")], volumes=["/a/b", "/ab"]),
        MountPlan(directories=("/a", "/ab"), filled=("/a",), fresh=("/a/b",), made=("/a", "/a/b", "/ab")),
    ),
    (
        "below a volume there is nothing that the task does not put there",
        task(
            volumes=["/work"],
            inputs=[directory("/work/in")],
            outputs=[directory("/work/run1"), {"path": "/work/run2/*.txt", "path_prefix": "/"}],
        ),
        mounted("/work", made=("/work", "/work/in")),
    ),
    (
        "but the directory of an output file",
        task(volumes=["/work"], outputs=[file("/work/run1/x.txt")]),
        mounted("/work", made=("/work", "/work/run1")),
    ),
    (
        "the literal directory of a pattern",
        task(outputs=[{"path": "/work/x/*/y?.txt", "path_prefix": "/work"}]),
        filled("/work/x"),
    ),
    ("a working directory", task(workdir="/scratch/job"), filled("/scratch/job")),
    (
        "a working directory in a volume",
        task(workdir="/scratch/job", volumes=["/scratch"]),
        mounted("/scratch", made=("/scratch", "/scratch/job")),
    ),
    ("a working directory that every image has", task(workdir="/usr/src/app"), MountPlan()),
    (
        "Nextflow",
        task(inputs=[file("/work/.command.sh")], outputs=[{"path": "/work/.exitcode"}], workdir="/work"),
        filled("/work"),
    ),
    (
        "snakemake",
        task(inputs=[{"path": "/tmp/run_snakemake.sh", "content": "x"}], workdir="/tmp"),
        filled("/tmp"),
    ),
    (
        "cwl-tes",
        task(
            inputs=[file("/var/lib/cwl/stg1/x")],
            outputs=[file("/AbCdEf/out.txt"), directory("/AbCdEf")],
            stdout="/AbCdEf/out.txt",
        ),
        MountPlan(
            directories=("/AbCdEf", "/var/lib/cwl/stg1"),
            filled=("/var/lib/cwl/stg1",),
            made=("/AbCdEf", "/var/lib/cwl/stg1"),
        ),
    ),
    (
        "Sprocket",
        task(
            inputs=[file("/mnt/task/inputs/0/x"), file("/mnt/task/command")],
            outputs=[directory("/mnt/task/work"), file("/mnt/task/stdout")],
            workdir="/mnt/task/work",
            stdout="/mnt/task/stdout",
        ),
        MountPlan(
            directories=("/mnt/task",),
            filled=("/mnt/task",),
            fresh=("/mnt/task/work",),
            made=("/mnt/task", "/mnt/task/work"),
        ),
    ),
    (
        "/task is a directory like others",
        task(inputs=[file("/task/run.sh")], outputs=[file("/task/result.txt")], workdir="/task"),
        filled("/task"),
    ),
    (
        "files in system directories are placed",
        task(
            inputs=[file("/in"), file("/etc/app/conf"), file("/root/.netrc"), file("/usr/share/x/y")],
            outputs=[file("/out.txt"), file("/var/log/l"), file("/etc/app/conf")],
            stdout="/err",
            stderr="/dev/stderr",
        ),
        MountPlan(
            placed=(
                *("/err", "/etc/app/conf", "/in", "/out.txt", "/root/.netrc"),
                *("/usr/share/x/y", "/var/log/l"),
            )
        ),
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
        filled("/i", "/o", placed=("/err",)),
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


def test_streams_of_several_executors_are_shared():
    steps = [
        {"image": "i", "command": ["c"], "stdout": "/a.txt"},
        {"image": "i", "command": ["c"], "stdin": "/a.txt"},
    ]
    assert plan_mounts(TesTaskRequest.model_validate({"executors": steps})) == MountPlan(placed=("/a.txt",))


def test_unplaceable_inputs_are_mounted_one_by_one():
    request = task(inputs=[file("/etc/a")], outputs=[file("/etc/a"), file("/b")])
    assert plan_mounts(request, may_place=False) == MountPlan(files=("/etc/a",), placed=("/b",))


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        ([f"/a/{i}" for i in range(3)], ("/a/0", "/a/1", "/a/2")),
        ([f"/a/{i}" for i in range(4)], ("/a",)),
        ([*(f"/a/b/{i}" for i in range(4)), "/c/d"], ("/a/b", "/c/d")),
        ([f"/a/{i}/x/y" for i in range(4)], ("/a",)),
        ([f"/{i}/x" for i in range(4)], ("/0", "/1", "/2", "/3")),
        ([f"/opt/{i}" for i in range(4)], ("/opt/0", "/opt/1", "/opt/2", "/opt/3")),
    ],
)
def test_common_parent_of_many_directories_is_mounted(directories, expected):
    assert few(outermost(directories), 3) == expected


def test_named_directories_stay_empty_in_common_mount():
    request = task(volumes=[f"/a/{i:03}" for i in range(100)], inputs=[file("/a/b/x")])
    plan = plan_mounts(request)
    assert (plan.directories, plan.filled) == (("/a",), ("/a",))
    assert plan.fresh == tuple(f"/a/{i:03}" for i in range(100))


def test_many_directories_are_planned_in_no_time():
    paths = [f"/data/{number}" for number in range(50_000)]
    assert len(outermost([*paths, *(f"{path}/in" for path in paths)])) == 50_000
