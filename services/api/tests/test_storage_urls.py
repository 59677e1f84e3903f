"""URLs are refused at the create as the filer that would serve them refuses them later."""

import pytest

from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask
from poiesis_api.validation import parse_task, validate
from poiesis_models.tes import TesTaskRequest

EXECUTOR = {"image": "busybox", "command": ["true"]}


def output(url, path="/data/r", **fields):
    return {"outputs": [{"url": url, "path": path, **fields}]}


def source(url, path="/data/r", **fields):
    return {"inputs": [{"url": url, "path": path, **fields}]}


def checked(config, fields, executor=EXECUTOR):
    return validate(TesTaskRequest.model_validate({"executors": [executor], **fields}), config)


def document(config, *filers):
    given = config.model_dump(by_alias=True)
    return Document.model_validate({**given, "filers": [*given["filers"], *filers]})


def filer(name, scheme, module, **fields):
    command = ["python3", "-m", module] if module else ["serve"]
    side = {"schemes": [scheme], "image": "filer", "command": command}
    return {"name": name, "inputs": side, "outputs": side, **fields}


@pytest.fixture(scope="module")
def filers(config):
    """The default filers, rclone, a shared volume, and a program of the operator's."""
    volume = {"prefix": "/nfs/out", "volume": {"nfs": {}}, "writable": True}
    return document(
        config,
        filer("rclone", "sftp", "poiesis_rclone"),
        filer("file", "file", "poiesis_file", sharedVolumes=[volume]),
        filer("own", "own", None),
    )


REFUSED = [
    (
        output("s3://someone:hidden-word@s3.example.org:9000/bucket/r"),
        "outputs[0].url",
        "write s3://bucket/key",
    ),
    (source("s3://someone:hidden-word@s3.example.org/bucket/r"), "inputs[0].url", "write s3://bucket/key"),
    (source("s3://s3.example.org:9000/bucket/r"), "inputs[0].url", "write s3://bucket/key"),
    (source("s3://someone:hidden/word@host/bucket/r"), "inputs[0].url", "write s3://bucket/key"),
    (source("s3:/bucket/r"), "inputs[0].url", "is not an S3 URL (s3://bucket/key)"),
    (source("s3:///r"), "inputs[0].url", "does not name an S3 bucket"),
    (output("s3://a b/r"), "outputs[0].url", "does not name an S3 bucket"),
    (output("s3://b/" + "k" * 1025), "outputs[0].url", "an S3 key has at most 1024 bytes"),
    (output("s3://b/d/", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("s3://b", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("s3://b/", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("sftp://h/d/", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("/nfs/out/", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("file:///nfs/out", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (output("own://h/d/", type="FILE"), "outputs[0].url", "names a directory, but the output is a file"),
    (source("https://h/d/", type="DIRECTORY"), "inputs[0].url", "by HTTP, which cannot list a directory"),
    (source("http://h/d", path="/data/"), "inputs[0].url", "by HTTP, which cannot list a directory"),
    (source("https://u:hidden-word@h/d?hidden-word", type="DIRECTORY"), "inputs[0].url", "'https://h/d'"),
    (source("https:///d"), "inputs[0].url", "does not contain a valid host name"),
    (source("https://a..b/d"), "inputs[0].url", "does not contain a valid host name"),
    (source("https://" + "a" * 64 + "/d"), "inputs[0].url", "does not contain a valid host name"),
    (source("https://h:port/d"), "inputs[0].url", "is not an HTTP URL (https://host[:port]/path)"),
    (source("https://h:99999/d"), "inputs[0].url", "is not an HTTP URL"),
    (source("https://u:hidden-word/x@h/d"), "inputs[0].url", "is not an HTTP URL"),
    (source("gs://u:hidden-word@b/k"), "inputs[0].url", "unsupported URL scheme 'gs' in 'gs://b/k'"),
    (source("gs://u:hidden/hidden-word@b/k?hidden-word"), "inputs[0].url", "in 'gs://b/k'"),
    (source("reads.fq"), "inputs[0].url", "'reads.fq' has no URL scheme (supported: file, http, "),
    (source("sftp:/h/k"), "inputs[0].url", "must have the form scheme://"),
    (source("sftp://h/a//b"), "inputs[0].url", "a segment of the path of 'sftp://h/a//b' is empty"),
    (output("sftp://h/a/../b"), "outputs[0].url", "a segment of the path"),
    (source("sftp://h/d/", type="FILE"), "inputs[0].url", "names a directory, but type is FILE"),
    (source("/nfs/out/d/", type="FILE"), "inputs[0].url", "names a directory, but type is FILE"),
]


@pytest.mark.parametrize(("fields", "field", "words"), REFUSED)
def test_url_unsupported_by_filer_is_rejected(filers, fields, field, words):
    with pytest.raises(InvalidTask) as raised:
        checked(filers, fields)
    assert raised.value.field == field
    assert str(raised.value).startswith(f"{field}: ")
    assert words in str(raised.value)
    assert "hidden" not in str(raised.value)
    assert "word" not in str(raised.value)


ACCEPTED = [
    source("s3://b/a b?x#y%20é@:"),
    source("s3://b"),
    source("s3://b/d/", type="FILE"),  # the filer reads a directory
    source("s3://b/d", path="/data/"),
    source("https://user:word@h:8443/x?y#z"),
    source("https://h/d/"),
    source("https://bücher.example/x"),
    source("http://[::1]:80/x"),
    source("http://h./x"),
    output("s3://b/d/"),
    output("s3://b"),
    output("s3://b", path="/data/r/", type="FILE"),
    output("s3://b", type="DIRECTORY"),
    output("s3://b/d/", path="/data/*", path_prefix="/data", type="FILE"),
    output("sftp://h/a/b"),
    output("sftp://h/"),
    output("own://user:word@h//x"),
    source("own:anything", type="DIRECTORY"),
    output("/nfs/out", type="DIRECTORY"),
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_a_url_that_its_filer_serves_is_accepted(filers, fields):
    checked(filers, fields)


def test_a_stream_is_certainly_a_file(config):
    executor = EXECUTOR | {"stdout": "/data/r"}
    with pytest.raises(InvalidTask, match="the output is a file"):
        checked(config, output("s3://b/d/"), executor)


def test_another_http_filer_may_list_directories(config):
    with_own = Document.model_validate(
        config.model_dump(by_alias=True) | {"filers": [filer("own", "https", "poiesis_rclone")]}
    )
    checked(with_own, source("https://h/d/", type="DIRECTORY"))


def test_message_about_malformed_url_has_no_password(config):
    body = b'{"executors": [{"image": "i", "command": ["c"]}], "inputs": [{"path": "/a", "url": %s}]}'
    with pytest.raises(InvalidTask) as raised:
        parse_task(body % rb'"s3://u:hidden@h/b\u0000"')
    assert "hidden" not in str(raised.value)
    with pytest.raises(InvalidTask) as raised:
        validate(parse_task(body % b'"https://u:hidden@h/%s"' % (b"x" * 70000)), config)
    assert "hidden" not in str(raised.value)
