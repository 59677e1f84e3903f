import pytest

from poiesis_models.worklist import OutputItem
from poiesis_staging.outputs import Found
from poiesis_tof.send import check, target
from poiesis_transfer.errors import Permanent, Unsendable
from poiesis_transfer.urls import S3Url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "https://u:secret@h/p?secret",
            "output /out/file: unsupported URL scheme 'https' in 'https://h/p' (supported: s3)",
        ),
        ("/bare", "no URL scheme"),
        ("s3:///k", "does not name an S3 bucket"),
    ],
)
def test_unsendable_outputs_are_named_first(url: str, words: str):
    with pytest.raises(Permanent) as failure:
        check([OutputItem(path="/out/file", local="/task/root/out/file", url=url)])
    assert words in str(failure.value)
    assert "secret" not in str(failure.value)


def test_a_work_list_that_contradicts_itself_is_refused():
    with pytest.raises(Permanent, match="invalid work list"):
        check([OutputItem(path="/a", local="/task/root/b", url="s3://b/k")])


def test_keys_are_decoded_if_configured():
    file = "/task/root/out/f"
    assert target(Found("/out/f", file, "s3://b/a%20%25"), "decoded") == S3Url("b", "a %")
    with pytest.raises(Unsendable, match="its URL s3://b/a%2F names a directory"):
        target(Found("/out/f", file, "s3://b/a%2F"), "decoded")
    item = OutputItem(path="/out/f", local=file, url="s3://b/%ff")
    check([item])
    with pytest.raises(Permanent, match="output /out/f: the percent escapes of s3://b/%ff must be UTF-8"):
        check([item], "decoded")


def test_keys_are_literal_and_files_need_one():
    assert target(Found("/out/f", "/task/root/out/f", "s3://b/a b?#")) == S3Url("b", "a b?#")
    with pytest.raises(Unsendable, match="its URL s3://b names a bucket"):
        target(Found("/out/f", "/task/root/out/f", "s3://b"))
