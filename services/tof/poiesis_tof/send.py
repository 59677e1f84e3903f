"""Send the outputs to S3. What no output needs is not loaded: it would be a part of every task's end."""

from collections.abc import Sequence

from poiesis_models.worklist import OutputItem, WorkList
from poiesis_staging.outputs import Found, data_root, send_all
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Permanent, Unsendable
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import S3Url, parse_s3, scheme, shown


def send(config: Config, work: WorkList, progress: Progress) -> None:
    """Send every file of every output; raise TransferError."""
    check(work.outputs)
    if not work.outputs:
        return
    from poiesis_transfer.stores import S3Stores

    with S3Stores(config.s3, config.credentials) as store:

        def upload(found: Found) -> int:
            url = target(found)
            with SourceFile(found.local, found.path) as source:
                store.upload(source, url, progress)
                source.check_size()
                return source.size

        send_all(work.outputs, upload, progress, interrupt=store.interrupt)


def check(items: Sequence[OutputItem]) -> None:
    """Raise Permanent for what this filer cannot do, before anything is moved."""
    for item in items:
        kind = scheme(item.url)
        if kind != "s3":
            raise Permanent(
                f"output {item.path}: {shown(item.url)} has "
                f"{f'the scheme {kind!r}' if kind else 'no scheme'}; outputs can be sent to s3 only"
            )
        parse_s3(item.url)
        data_root(item)


def target(found: Found) -> S3Url:
    """Raise Unsendable if a file cannot be there."""
    url = parse_s3(found.url)
    if not url.key:
        raise Unsendable(f"output {found.path} is a file, but its URL {shown(found.url)} names a bucket")
    return url
