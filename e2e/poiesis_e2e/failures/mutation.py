"""What a mutation is, and how its edits are made. Pure.

An edit names a symbol of the product and the code that runs first there, so that rewording or reformatting
the product does not break it. Code without a symbol must be moved into its own function.
"""

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Code that is inserted in one place.

    `where` is `file:name`, the file relative to the repository's root. The code goes to the start of the
    function `name` (in Python also `Class.method`, or directly after the assignment to `name`). Without a
    name the code is the whole of a new file.
    """

    where: str
    code: str

    @property
    def file(self) -> str:
        """Return the path relative to the repository's root."""
        return self.where.partition(":")[0]

    @property
    def symbol(self) -> str:
        """Return the dotted name inside the file; empty for a new file."""
        return self.where.partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Edits that remove the handling of some failure. `effect`: what the product does then.

    `rows` must fail with it. `spoils`: other rows that fail as well, or may, so they prove nothing about
    another mutation in the same tree. `late`: the mutation delays its rows; for any other mutation, lateness
    alone proves nothing, because the machine may be slow.
    """

    name: str
    effect: str
    edits: tuple[Edit, ...]
    rows: tuple[str, ...]
    spoils: tuple[str, ...] = ()
    late: bool = False


class Verdict(StrEnum):
    """The result of a row under a mutation. `BROKEN`: it failed, but not by one of its own assertions."""

    KILLED = "killed"
    LATE = "late"
    SURVIVED = "survived"
    BROKEN = "broken"


class NotOnce(ValueError):
    """The symbol of an edit must be defined exactly once."""

    def __init__(self, edit: Edit, count: int) -> None:
        super().__init__(f"{edit.where} must be defined exactly once, is defined {count} times")


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return `text`, the content of the file that all `edits` name, with them made. Raise NotOnce."""
    for edit in edits:
        line, indentation = _place(text, edit)
        lines = text.splitlines(keepends=True)
        lines.insert(line, textwrap.indent(f"{edit.code}\n", " " * indentation))
        text = "".join(lines)
    return text


def _place(text: str, edit: Edit) -> tuple[int, int]:
    """Return how many lines precede the code, and its indentation."""
    if not edit.symbol:
        places = [] if text else [(0, 0)]
    elif edit.file.endswith(".c"):
        places = list(_in_c(text, edit.symbol))
    else:
        places = [_in_python(node) for node in python_definitions(text, edit.symbol)]
    if len(places) != 1:
        raise NotOnce(edit, len(places))
    return places[0]


def _in_c(text: str, function: str) -> Iterator[tuple[int, int]]:
    definition = re.compile(rf"^[a-z][^\n;]*\b{function}\([^;{{}}]*\)\n{{\n", re.MULTILINE)
    return ((text.count("\n", 0, match.end()), 4) for match in definition.finditer(text))


def _in_python(node: ast.stmt) -> tuple[int, int]:
    if not isinstance(node, _Function):
        return node.end_lineno or node.lineno, node.col_offset
    first, *rest = node.body
    if ast.get_docstring(node) is None:
        return first.lineno - 1, first.col_offset
    return rest[0].lineno - 1 if rest else first.end_lineno or first.lineno, first.col_offset


def python_definitions(text: str, symbol: str) -> list[ast.stmt]:
    """Return the functions and assignments that define the dotted name `symbol` in a module."""
    return list(_definitions(ast.parse(text).body, *symbol.split(".")))


def _definitions(body: Sequence[ast.stmt], name: str, *rest: str) -> Iterator[ast.stmt]:
    for node in body:
        if rest and isinstance(node, ast.ClassDef) and node.name == name:
            yield from _definitions(node.body, *rest)
        elif not rest and name in _names(node):
            yield node


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, _Function):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def edits_by_file(mutations: Iterable[Mutation]) -> Mapping[str, Sequence[Edit]]:
    """Return the edits of each file, by `Edit.file`."""
    found: dict[str, list[Edit]] = {}
    for mutation in mutations:
        for edit in mutation.edits:
            found.setdefault(edit.file, []).append(edit)
    return found


def grouped(mutations: Sequence[Mutation]) -> list[list[Mutation]]:
    """Return few groups of mutations that can share a tree: none of them touches another's rows."""
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
    """Return whether two mutations edit different symbols and do not affect each other's rows."""
    touched, others = {*one.rows, *one.spoils}, {*other.rows, *other.spoils}
    if touched & {*other.rows} or others & {*one.rows}:
        return False
    return not {edit.where for edit in one.edits} & {edit.where for edit in other.edits}


def uncovered(
    rows: Iterable[str], mutations: Iterable[Mutation], exempt: Mapping[str, str]
) -> tuple[set[str], set[str]]:
    """Return the rows that no mutation kills and no reason exempts; and those that both do."""
    covered = {row for mutation in mutations for row in mutation.rows}
    return set(rows) - covered - exempt.keys(), covered & exempt.keys()


def judged(mutation: Mutation, verdicts: Mapping[str, Verdict]) -> Mapping[str, Verdict]:
    """Return the verdict of each of its rows; a row without one is broken."""
    found = {row: verdicts.get(row, Verdict.BROKEN) for row in mutation.rows}
    return {
        row: Verdict.KILLED if mutation.late and verdict is Verdict.LATE else verdict
        for row, verdict in found.items()
    }
