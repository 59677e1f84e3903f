"""Which key an input's S3 URL means: literal first, decoded if nothing is there; and what that costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poiesis_models.worklist import FileType, InputItem
from poiesis_tif.plan import plan
from poiesis_tif.steps import Staging
from poiesis_transfer.errors import Denied, NotFound, Permanent
from poiesis_transfer.fetch import Sink
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress
from poiesis_transfer.s3 import S3Object
from poiesis_transfer.urls import S3Url


class Store:
    """Objects by key. It counts requests; without `lists` it denies what it does not have, as S3 does."""

    def __init__(self, *keys: str, lists: bool = True) -> None:
        self._keys = keys
        self._lists = lists
        self.asked: list[str] = []

    def download(self, url: S3Url, destination: Sink) -> None:
        self.asked.append(url.key)
        if url.key not in self._keys:
            kind = NotFound if self._lists else Denied
            raise kind(f"cannot read {url}: no such object")
        destination.write(url.key.encode(), 0)
        destination.keep()

    def list(self, url: S3Url) -> Iterator[S3Object]:
        self.asked.append(f"{url.prefix}*")
        self._check_lists(url)
        yield from (S3Object(key, len(key)) for key in self._keys if key.startswith(url.prefix))

    def is_directory(self, url: S3Url) -> bool:
        self.asked.append(f"{url.prefix}?")
        self._check_lists(url)
        return any(key.startswith(url.prefix) for key in self._keys)

    def is_object(self, url: S3Url) -> bool:
        return url.key in self._keys

    def _check_lists(self, url: S3Url) -> None:
        if not self._lists:
            raise Denied(f"cannot list {url}: access denied")


class OneStore:
    """Clients with this S3 store alone."""

    def __init__(self, s3: Store) -> None:
        self.s3 = s3

    def interrupt(self) -> None:
        """Do nothing: no request waits."""


class Recorded(Progress):
    """Progress that keeps its warnings."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.warnings: list[str] = []

    def warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def stage(tmp_path: Path):
    """What was staged, by relative path, and the warnings."""

    def stage(store: Any, key: str, kind: FileType | None) -> tuple[dict[str, str], list[str]]:
        root = tmp_path / "in"
        steps = plan([InputItem(path="/in", local=str(root), type=kind, url=f"s3://b/{key}")])
        with Recorded(tmp_path) as progress:
            clients: Any = OneStore(store)
            staging = Staging(clients=clients, contents=tmp_path, progress=progress, free_space=FreeSpace())
            steps[0].stage(staging)
        if root.is_file():
            return {"": root.read_text()}, progress.warnings
        files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
        return files, progress.warnings

    return stage


@pytest.mark.parametrize(
    ("keys", "key", "kind", "asked"),
    [
        (["a%20b", "a b"], "a%20b", "FILE", ["a%20b"]),  # the literal key wins, and nothing else is asked for
        (["a%20b/x", "a b/x"], "a%20b", "DIRECTORY", ["a%20b/*", "a%20b/x"]),
        (["a%20b/x"], "a%20b", None, ["a%20b", "a%20b/?", "a%20b/*", "a%20b/x"]),
        (["a b"], "a b", "FILE", ["a b"]),
    ],
)
def test_a_literal_key_costs_no_more_than_before(stage, keys, key, kind, asked):
    store = Store(*keys)
    files, warnings = stage(store, key, kind)
    assert list(files.values()) == [keys[0]]
    assert (store.asked, warnings) == (asked, [])


@pytest.mark.parametrize(
    ("keys", "key", "kind", "files"),
    [
        (["sub dir/x.txt"], "sub%20dir/x.txt", "FILE", {"": "sub dir/x.txt"}),
        (["sub dir/x.txt"], "sub%20dir/x.txt", None, {"": "sub dir/x.txt"}),
        (["é/1", "é/2 %20"], "%C3%A9", "DIRECTORY", {"1": "é/1", "2 %20": "é/2 %20"}),
        (["é/1"], "%C3%A9/", "FILE", {"1": "é/1"}),
        (["é/1"], "%C3%A9", None, {"1": "é/1"}),
        (["a/1"], "a%2F", "FILE", {"1": "a/1"}),
        (["50% of"], "50%%20of", "FILE", {"": "50% of"}),
        (["a b", "a%20b/x"], "a%20b", "FILE", {"": "a b"}),  # a directory is not the file that is named
    ],
)
def test_a_decoded_key_is_read_and_recorded(stage, keys, key, kind, files):
    staged, warnings = stage(Store(*keys), key, kind)
    assert staged == files
    (warning,) = warnings
    assert f"input /in: nothing readable at s3://b/{key}; used its percent-decoded key instead" in warning


def test_a_decoded_key_needs_no_listing(stage):
    files, warnings = stage(Store("a b", lists=False), "a%20b", "FILE")
    assert (files, len(warnings)) == ({"": "a b"}, 1)


@pytest.mark.parametrize("kind", ["FILE", "DIRECTORY", None])
@pytest.mark.parametrize("lists", [True, False])
def test_a_missing_key_is_named_in_both_forms(stage, kind, lists):
    with pytest.raises(Permanent) as failure:
        stage(Store("other", lists=lists), "a%20b", kind)
    assert "s3://b/a%20b" in str(failure.value)
    assert "with its percent escapes decoded" in str(failure.value)
    assert "s3://b/a b" in str(failure.value)


@pytest.mark.parametrize("key", ["100%", "%ff", "plain"])
def test_a_plain_key_is_requested_once(stage, key):
    store = Store("other")
    with pytest.raises(NotFound) as failure:
        stage(store, key, None)
    assert (store.asked, "decoded" in str(failure.value)) == ([key, f"{key}/?"], False)


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        (["a b/x"], "FILE", "there are objects below s3://b/a b/: declare input /in as DIRECTORY"),
        (["a b"], "DIRECTORY", "s3://b/a b is an object, but input /in is declared as DIRECTORY"),
    ],
)
def test_another_type_at_the_decoded_key_is_named(stage, keys, kind, words):
    with pytest.raises(Permanent, match=words):
        stage(Store(*keys), "a%20b", kind)


def test_a_missing_member_is_not_searched_elsewhere(stage):
    class Losing(Store):
        def download(self, url: S3Url, destination: Sink) -> None:
            del destination
            raise NotFound(f"cannot read {url}: no such object")

    store = Losing("a%20b/x", "a b/x")
    with pytest.raises(Permanent, match="cannot read s3://b/a%20b/x"):
        stage(store, "a%20b", "DIRECTORY")
    assert store.asked == ["a%20b/*"]
