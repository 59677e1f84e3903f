"""Which inputs are streamed, as a table."""

import pytest

from poiesis_api.mounts import plan_mounts
from poiesis_api.streaming import MOST, streamable_inputs
from poiesis_models.tes import TesTaskRequest

EXECUTOR = {"image": "busybox", "command": ["true"]}
READS = {"path": "/in/reads.bam", "url": "s3://lab/reads.bam", "type": "FILE", "streamable": True}


def streamed(*inputs, **fields) -> list[int]:
    document = {"executors": [EXECUTOR], "inputs": list(inputs), **fields}
    request = TesTaskRequest.model_validate(document)
    return sorted(streamable_inputs(request, plan_mounts(request)))


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "https://example.org/reads.bam?signed"},
        {"url": "s3://lab/deep/reads.bam"},
        {"path": "/reads/in.bam"},
    ],
)
def test_a_file_that_is_streamable_is_streamed(changed):
    assert streamed(READS | changed) == [0]


@pytest.mark.parametrize(
    "changed",
    [
        {"streamable": False},
        {"streamable": None},
        {"type": None},
        {"type": "DIRECTORY"},
        {"url": "s3://lab/reads/"},
        {"url": "s3://lab"},
        {"content": "reads"},
        {"path": "/etc/reads.bam"},  # mounted by itself
    ],
)
def test_another_input_is_staged(changed):
    assert streamed(READS | changed) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"executors": [EXECUTOR, EXECUTOR]},
        {"executors": [EXECUTOR | {"stdin": "/in/reads.bam"}]},
        {"executors": [EXECUTOR | {"stdout": "/in/reads.bam"}]},
        {"outputs": [{"path": "/in/reads.bam", "url": "s3://lab/out"}]},
        {"outputs": [{"path": "/in", "url": "s3://lab/out", "type": "DIRECTORY"}]},
        {"outputs": [{"path": "/in/", "url": "s3://lab/out"}]},
        {"outputs": [{"path": "/in/*.bam", "url": "s3://lab/out", "path_prefix": "/in"}]},
        {"volumes": ["/in/reads.bam/deeper"]},
    ],
)
def test_what_something_else_comes_across_is_staged(fields):
    assert streamed(READS, **fields) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"executors": [EXECUTOR | {"stdin": "/in/other", "stdout": "/in/reads.txt"}]},
        {"outputs": [{"path": "/in/reads.bam.bai", "url": "s3://lab/out"}]},
        {"outputs": [{"path": "/out/*.bam", "url": "s3://lab/out", "path_prefix": "/out"}]},
        {"volumes": ["/in", "/scratch"]},
    ],
)
def test_what_nothing_else_comes_across_is_streamed(fields):
    assert streamed(READS, **fields) == [0]


def test_nested_input_is_staged_and_sibling_streamed():
    directory = {"path": "/in", "url": "s3://lab/in/", "type": "DIRECTORY"}
    beside = READS | {"path": "/other/reads.bam"}
    assert streamed(directory, READS, beside) == [2]


def test_inputs_beyond_the_maximum_are_staged():
    assert streamed(*(READS | {"path": f"/in/{number}"} for number in range(MOST + 2))) == list(range(MOST))
