"""The mutations match the tree and the failure table, and verdicts are correct."""

import ast
import builtins
import re
from dataclasses import replace
from symtable import symtable
from textwrap import indent

import pytest

from poiesis_e2e.failures import mutants, verdict
from poiesis_e2e.failures.case import Case, Late
from poiesis_e2e.failures.cases import CASES
from poiesis_e2e.failures.mutation import (
    Edit,
    Mutation,
    NotOnce,
    Verdict,
    edited,
    grouped,
    judged,
    python_definitions,
    uncovered,
)
from poiesis_e2e.failures.mutations import EXEMPT, MUTATIONS
from poiesis_e2e.tes_client import StillWaiting
from poiesis_e2e.waiting import NotInTime

ROWS = {case.id for case in CASES}
EDITS = {
    f"{edit.where.rpartition('/')[2]}={mutation.name}": edit
    for mutation in MUTATIONS
    for edit in mutation.edits
} | {"story": mutants.SOONER}
PYTHON_EDITS = {name: edit for name, edit in EDITS.items() if edit.file.endswith(".py")}
C_EDITS = {name: edit for name, edit in EDITS.items() if edit.file.endswith(".c")}


@pytest.mark.parametrize("group", grouped(MUTATIONS), ids=lambda group: group[0].name)
def test_group_of_mutations_makes_valid_tree(group: list[Mutation]) -> None:
    for name, (before, after) in mutants.changed(mutants.ROOT, group).items():
        assert after != before
        if name.endswith(".py"):
            ast.parse(after)


@pytest.mark.parametrize("edit", PYTHON_EDITS.values(), ids=PYTHON_EDITS)
def test_edit_uses_names_that_exist_there(edit: Edit) -> None:
    """A NameError would fail every row, and assigning to an argument that was renamed would fail no row."""
    text = (mutants.ROOT / edit.file).read_text(encoding="utf-8")
    (definition,) = python_definitions(text, edit.symbol)
    nodes = list(ast.walk(ast.parse(f"async def _():\n{indent(edit.code, ' ')}")))
    variables = [node for node in nodes if isinstance(node, ast.Name)]
    assignments = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    assigned = {target.id for target in assignments if isinstance(target, ast.Name)}
    own = {node.id for node in variables if isinstance(node.ctx, ast.Store)} - assigned
    read = {node.id for node in variables if isinstance(node.ctx, ast.Load)} - own
    arguments = {node.arg for node in ast.walk(definition) if isinstance(node, ast.arg)} | {edit.symbol}
    module = set(symtable(text, edit.file, "exec").get_identifiers())
    assert assigned <= arguments
    assert read <= arguments | module | set(dir(builtins))


@pytest.mark.parametrize("edit", C_EDITS.values(), ids=C_EDITS)
def test_edit_in_c_uses_words_of_its_file(edit: Edit) -> None:
    """Find renamed symbols early: only `make mutants` compiles the code."""
    words = [
        set(re.findall(r"[A-Za-z_]\w*", re.sub(r'".*?"', "", text)))
        for text in (edit.code, (mutants.ROOT / edit.file).read_text(encoding="utf-8"))
    ]
    assert words[0] - {"exit", "if", "return"} <= words[1]


def test_row_that_hangs_fails_soon() -> None:
    scope = {"case": CASES[0]}
    exec(mutants.SOONER.code, scope)  # noqa: S102
    assert scope["case"] == replace(CASES[0], wait_seconds=CASES[0].bound + 150)


def test_mutations_have_unique_names_and_known_rows() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    named = {row for mutation in MUTATIONS for row in (*mutation.rows, *mutation.spoils)}
    assert named - ROWS == set()
    assert EXEMPT.keys() - ROWS == set()


def test_every_row_has_a_mutation_or_an_excuse() -> None:
    assert uncovered(ROWS, MUTATIONS, EXEMPT) == (set(), set())


@pytest.mark.parametrize("group", grouped(MUTATIONS), ids=lambda group: group[0].name)
def test_every_group_leaves_a_control_row(group: list[Mutation]) -> None:
    assert mutants.control(group) in ROWS - {row for one in group for row in (*one.rows, *one.spoils)}


def mutation(
    name: str, *rows: str, spoils: tuple[str, ...] = (), where: str = "", late: bool = False
) -> Mutation:
    edit = Edit(where=where or f"f.py:{name}", code="")
    return Mutation(name=name, effect="", edits=(edit,), rows=rows, spoils=spoils, late=late)


PYTHON = '''\
A = frozenset(
    {1}
)
B: int = 1


def f(a):
    """Words."""
    # why
    return a


class C:
    async def f(
        self,
    ):
        if self:
            return 1

    def only_words(self):
        """Words."""
'''
C = """\
static int f(int a);

static bool f(int a,
              int b)
{
    return a;
}

void g(void)
{
    f(1);
}
"""


@pytest.mark.parametrize(
    ("where", "text", "before"),
    [
        ("f.py:A", PYTHON, "B: int"),
        ("f.py:B", PYTHON, "\n\ndef f"),
        ("f.py:f", PYTHON, "    return a"),
        ("f.py:C.f", PYTHON, "        if self"),
        ("f.py:C.only_words", PYTHON, ""),
        ("f.c:f", C, "    return a"),
        ("f.c:g", C, "    f(1)"),
        ("f.sql", "", ""),
    ],
)
def test_edit_starts_function_or_follows_assignment(where: str, text: str, before: str) -> None:
    after = edited(text, [Edit(where=where, code="return 2")])
    start, _, rest = after.partition("return 2\n")
    assert start.rstrip(" ") + rest == text
    assert rest.startswith(before)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("f.py:f", "def g(): ..."),
        ("f.py:f", "def f(): ...\ndef f(): ..."),
        ("f.py:C.f", "def f(): ..."),
        ("f.c:f", "int f(void);"),
        ("f.c:f", C + C),
        ("f.sql", "SELECT 1"),
    ],
)
def test_edit_needs_exactly_one_definition(where: str, text: str) -> None:
    with pytest.raises(NotOnce):
        edited(text, [Edit(where=where, code="return 2")])


def test_mutations_with_common_rows_or_symbols_are_separated() -> None:
    apart = [mutation("a", "1"), mutation("b", "2", spoils=("3",)), mutation("c", "4", spoils=("3",))]
    assert len(grouped(apart)) == 1
    assert len(grouped([mutation("a", "1"), mutation("b", "1")])) == 2
    assert len(grouped([mutation("a", "1"), mutation("b", "2", spoils=("1",))])) == 2
    assert len(grouped([mutation("a", "1", where="f.py:f"), mutation("b", "2", where="f.py:f")])) == 2


def test_lateness_kills_only_rows_of_late_mutations() -> None:
    found = {"1": Verdict.LATE, "2": Verdict.KILLED}
    assert judged(mutation("a", "1", "2", "3"), found) == {
        "1": Verdict.LATE,
        "2": Verdict.KILLED,
        "3": Verdict.BROKEN,
    }
    assert judged(mutation("a", "1", late=True), found) == {"1": Verdict.KILLED}


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def of_one_row(error: Exception, *, in_test: bool = True) -> Verdict:
    ((found, _),) = verdict.judge(error, ["row"], in_test=in_test).values()
    return found


def run_as(file: str, source: str) -> Exception:
    """Return the exception of a module with this file name."""
    scope: dict[str, object] = {"NotInTime": NotInTime}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        exec(compile(source, f"/somewhere/{file}", "exec"), scope)  # noqa: S102
    return caught.value


def test_only_what_a_row_asserts_kills() -> None:
    waiting = StillWaiting.__new__(StillWaiting)
    own = raised(AssertionError("x"))
    assert of_one_row(own) is Verdict.KILLED
    assert of_one_row(own, in_test=False) is Verdict.BROKEN
    assert of_one_row(raised(NotInTime("x"))) is Verdict.KILLED
    assert of_one_row(raised(RuntimeError("x"))) is Verdict.BROKEN
    assert of_one_row(raised(ExceptionGroup("in a TaskGroup", [raised(waiting)]))) is Verdict.KILLED
    mixed = ExceptionGroup("in a TaskGroup", [own, raised(RuntimeError("x"))])
    assert of_one_row(raised(mixed)) is Verdict.BROKEN


def test_late_and_failed_rows_have_different_verdicts() -> None:
    own = raised(AssertionError("x"))
    assert of_one_row(raised(Late("x"))) is Verdict.LATE
    assert of_one_row(raised(ExceptionGroup("rows", [raised(Late("x")), own]))) is Verdict.KILLED


def test_only_failures_of_observation_kill_a_row() -> None:
    assert of_one_row(run_as("disturbances.py", "raise AssertionError('no Pod')")) is Verdict.BROKEN
    source = "def in_system_logs():\n  def wait():\n    raise NotInTime('x')\n  wait()\nin_system_logs()"
    assert of_one_row(run_as("disturbances.py", source)) is Verdict.KILLED
    assert of_one_row(run_as("disturbances.py", source.replace("in_system_logs", "runs"))) is Verdict.BROKEN


def test_rows_of_one_test_have_separate_verdicts() -> None:
    one, two, *_ = CASES

    def prove(case: Case, error: Exception) -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
            assert case
            raise error
        return caught.value

    errors = [prove(one, AssertionError("x")), prove(two, RuntimeError("y"))]
    found = verdict.judge(raised(ExceptionGroup("rows", errors)), [one.id, two.id, "three"], in_test=True)
    assert {row: what for row, (what, _) in found.items()} == {one.id: Verdict.KILLED, two.id: Verdict.BROKEN}
    found = verdict.judge(raised(RuntimeError("no cluster")), ["one", "two"], in_test=False)
    assert {row: what for row, (what, _) in found.items()} == {"one": Verdict.BROKEN, "two": Verdict.BROKEN}


def test_results_distinguish_killed_survived_and_broken() -> None:
    report = """<testsuites><testsuite>
      <testcase name="test[one]"><properties><property name="seconds" value="1"/>
        <property name="one" value="killed as expected"/></properties><failure/></testcase>
      <testcase name="test[two]"/>
      <testcase name="test[three+four]"><properties><property name="three" value="killed why"/>
        <property name="three" value="broken teardown"/></properties><failure/><error/></testcase>
      <testcase name="test[five]"><failure/></testcase>
    </testsuite></testsuites>"""
    assert mutants.results(report) == {
        "one": (Verdict.KILLED, "as expected"),
        "two": (Verdict.SURVIVED, ""),
        "three": (Verdict.KILLED, "why"),
        "four": (Verdict.SURVIVED, ""),
        "five": (Verdict.BROKEN, ""),
    }
