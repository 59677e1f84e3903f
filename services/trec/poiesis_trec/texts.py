"""Which part of a log file to report next: what was appended, or the whole kept text. Pure.

A piece costs Postgres its own size, a whole text all that is kept. So the whole is sent first, after any
doubt about what is stored, when the pieces would exceed the limit, and once when the executor has ended.
"""

import json
from dataclasses import dataclass

from poiesis_models.runfiles import more_log, whole_log

PIECES = 100  # appended between two whole texts; Postgres stores at most 200
TEXT_BYTES = 1024 * 1024  # of one text in JSON, where a control character takes six


@dataclass(frozen=True, kw_only=True)
class SentText:
    """A text in a report, and what is stored of the stream once the report is.

    `after`: where the stored text ends that this piece continues; None: it is whole. `begin`, `end`: of what
    is stored then, in bytes of the stream. `pieces`: stored since the last whole text. `final`: a whole text
    of the ended executor would not differ.
    """

    text: str
    after: int | None = None
    begin: int
    end: int
    pieces: int = 0
    final: bool = False


def next_text(data: bytes, stored: SentText | None, cap: int, *, ended: bool) -> SentText:
    """Return the text to report of a log file with content `data`. `stored`: None if that is not known.

    What is stored is at most `cap` bytes of the stream. While the executor runs, a shortened text has half of
    them, so that pieces can follow.
    """
    cap = min(cap, TEXT_BYTES)
    if stored is not None and not ended and stored.pieces < PIECES:
        more = more_log(data, stored.end, ended=False)
        if more is not None and more.end - stored.begin <= cap and json_bytes(more.text) <= TEXT_BYTES:
            return SentText(
                text=more.text,
                after=stored.end,
                begin=stored.begin,
                end=more.end,
                pieces=stored.pieces + 1,
            )
    whole = whole_log(data, cap, ended=ended)
    if whole.begin > 0 and not ended:
        cap //= 2
        whole = whole_log(data, cap, ended=ended)
    while json_bytes(whole.text) > TEXT_BYTES:
        cap //= 2
        whole = whole_log(data, cap, ended=ended)
    final = ended or (whole.begin == 0 and whole.end == len(data))
    return SentText(text=whole.text, begin=whole.begin, end=whole.end, final=final)


def json_bytes(*texts: str) -> int:
    """Return the size of the texts in a report's JSON."""
    return sum(len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) for text in texts)
