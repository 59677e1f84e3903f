"""What a mutation is: some handling taken away, and the rows of the table that must then fail. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class Edit:
    """`old` stands exactly once in the file, whose path is relative to the repository's root."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`takes_away`: what handling, as a sentence about the code that is left.

    `rows` must fail with it. `spoils`: other rows that it makes fail as well, or may, so that they prove
    nothing about another mutation of the same tree. `late`: that a row comes too late is what it does; of
    any other, lateness alone proves nothing, for the machine may be slow.
    """

    name: str
    takes_away: str
    edits: tuple[Edit, ...]
    rows: tuple[str, ...]
    spoils: tuple[str, ...] = ()
    late: bool = False


class Verdict(StrEnum):
    """What became of a row under a mutation. `BROKEN`: it failed, but not by what it asserts."""

    KILLED = "killed"
    LATE = "late"
    SURVIVED = "survived"
    BROKEN = "broken"


class NotOnce(ValueError):
    """An edit's old text is not in its file, or there more than once."""

    def __init__(self, edit: Edit, count: int) -> None:
        super().__init__(f"{edit.file} has {count} times: {edit.old}")


def edited(text: str, edits: Iterable[Edit]) -> str:
    """`text`, the content of the file of all `edits`, with them. Raise NotOnce."""
    for edit in edits:
        if (count := text.count(edit.old)) != 1:
            raise NotOnce(edit, count)
        text = text.replace(edit.old, edit.new)
    return text


def edits_by_file(mutations: Iterable[Mutation]) -> Mapping[str, Sequence[Edit]]:
    """What is to be done to each file."""
    found: dict[str, list[Edit]] = {}
    for mutation in mutations:
        for edit in mutation.edits:
            found.setdefault(edit.file, []).append(edit)
    return found


def grouped(mutations: Sequence[Mutation]) -> list[list[Mutation]]:
    """Few groups of which each can be made of one tree: none of its mutations touches another's rows."""
    groups: list[list[Mutation]] = []
    for mutation in sorted(mutations, key=lambda one: -len(one.rows) - len(one.spoils)):
        fitting = (group for group in groups if all(are_apart(mutation, other) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([mutation])
        else:
            group.append(mutation)
    return groups


def are_apart(one: Mutation, other: Mutation) -> bool:
    """Whether what the rows of each prove is the same beside the other, and both can be made."""
    touched, others = {*one.rows, *one.spoils}, {*other.rows, *other.spoils}
    if touched & {*other.rows} or others & {*one.rows}:
        return False
    return not any(_overlap(edit, theirs) for edit in one.edits for theirs in other.edits)


def _overlap(one: Edit, other: Edit) -> bool:
    """They may be about the same lines: whole lines are compared, blank and common ones aside."""
    return one.file == other.file and bool(_lines(one.old) & _lines(other.old))


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


def uncovered(
    rows: Iterable[str], mutations: Iterable[Mutation], exempt: Mapping[str, str]
) -> tuple[set[str], set[str]]:
    """Rows that no mutation kills and no reason excuses; and those that both do."""
    covered = {row for mutation in mutations for row in mutation.rows}
    return set(rows) - covered - exempt.keys(), covered & exempt.keys()


def judged(mutation: Mutation, verdicts: Mapping[str, Verdict]) -> Mapping[str, Verdict]:
    """What became of its rows; a row of which nothing is known is broken."""
    found = {row: verdicts.get(row, Verdict.BROKEN) for row in mutation.rows}
    return {
        row: Verdict.KILLED if mutation.late and verdict is Verdict.LATE else verdict
        for row, verdict in found.items()
    }
