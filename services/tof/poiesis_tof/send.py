"""Send the outputs to S3. Imports that no output needs are not made: every task would pay for them."""

from collections.abc import Sequence

from poiesis_models import escapes
from poiesis_models.globs import join_url
from poiesis_models.worklist import OutputItem, WorkList
from poiesis_staging.outputs import Found, data_root, join_encoded, send_all
from poiesis_transfer.config import Config, OutputKeys
from poiesis_transfer.errors import Permanent, Unsendable
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import S3Url, parse_s3, scheme, shown


def send(config: Config, work: WorkList, progress: Progress) -> None:
    """Send every file of every output; raise TransferError."""
    keys = config.output_keys
    check(work.outputs, keys)
    if not work.outputs:
        return
    from poiesis_transfer.stores import S3Stores

    with S3Stores(config.s3, config.credentials) as store:

        def upload(found: Found) -> int:
            url = target(found, keys)
            with SourceFile(found.local, found.path) as source:
                store.upload(source, url, progress)
                source.check_size()
                return source.size

        join = join_encoded if keys == "decoded" else join_url
        send_all(work.outputs, upload, progress, interrupt=store.interrupt, join=join)


def check(items: Sequence[OutputItem], keys: OutputKeys = "literal") -> None:
    """Raise Permanent for an output that this filer cannot send, before any transfer."""
    for item in items:
        kind = scheme(item.url)
        if kind != "s3":
            problem = f"unsupported URL scheme {kind!r}" if kind else "no URL scheme"
            raise Permanent(f"output {item.path}: {problem} in {shown(item.url)!r} (supported: s3)")
        _place(item.path, item.url, keys)
        data_root(item)


def target(found: Found, keys: OutputKeys = "literal") -> S3Url:
    """Return the URL of a file. Raise Unsendable if no file can have that URL."""
    url = _place(found.path, found.url, keys)
    if not url.key or url.key.endswith("/"):
        kind = "directory" if url.key else "bucket"
        raise Unsendable(f"output {found.path} is a file, but its URL {shown(found.url)} names a {kind}")
    return url


def _place(path: str, text: str, keys: OutputKeys) -> S3Url:
    """Parse the URL of an output. Raise Permanent."""
    url = parse_s3(text)
    if keys == "literal":
        return url
    try:
        return url.with_key(escapes.unescaped(url.key))
    except UnicodeError as error:
        raise Permanent(
            f"output {path}: the percent escapes of {shown(text)} must be UTF-8 "
            "(this service decodes the keys of outputs)"
        ) from error
