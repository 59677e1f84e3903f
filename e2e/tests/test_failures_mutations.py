"""The mutations fit the tree and the failure table, and their verdicts are drawn with care."""

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
    edits_by_file,
    grouped,
    judged,
    uncovered,
)
from poiesis_e2e.failures.mutations import EXEMPT, MUTATIONS
from poiesis_e2e.tes_client import StillWaiting
from poiesis_e2e.waiting import NotInTime

ROWS = {case.id for case in CASES}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_what_a_mutation_takes_away_is_there_exactly_once(mutation: Mutation) -> None:
    for file, edits in edits_by_file([mutation]).items():
        text = (mutants.ROOT / file).read_text(encoding="utf-8")
        assert edited(text, edits) != text


def test_the_row_that_hangs_can_be_made_to_say_so_soon() -> None:
    edited((mutants.ROOT / mutants.SOONER.file).read_text(encoding="utf-8"), [mutants.SOONER])


@pytest.mark.parametrize("group", grouped(MUTATIONS), ids=lambda group: group[0].name)
def test_a_group_can_be_made_of_one_tree(group: list[Mutation]) -> None:
    for file, edits in edits_by_file(group).items():
        edited((mutants.ROOT / file).read_text(encoding="utf-8"), edits)


def test_every_mutation_has_a_name_of_its_own_and_rows_of_the_table() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    named = {row for mutation in MUTATIONS for row in (*mutation.rows, *mutation.spoils)}
    assert named - ROWS == set()
    assert EXEMPT.keys() - ROWS == set()


def test_every_row_of_the_table_is_killed_by_a_mutation_or_excused_for_a_reason() -> None:
    assert uncovered(ROWS, MUTATIONS, EXEMPT) == (set(), set())


@pytest.mark.parametrize("group", grouped(MUTATIONS), ids=lambda group: group[0].name)
def test_a_group_leaves_a_row_alone_that_shows_that_nothing_else_is_broken(group: list[Mutation]) -> None:
    assert mutants.control(group) in ROWS - {row for one in group for row in (*one.rows, *one.spoils)}


def mutation(
    name: str, *rows: str, spoils: tuple[str, ...] = (), old: str = "", late: bool = False
) -> Mutation:
    edit = Edit(file="f", old=old or name, new="")
    return Mutation(name=name, takes_away="", edits=(edit,), rows=rows, spoils=spoils, late=late)


def test_an_edit_is_refused_where_its_text_is_missing_or_ambiguous() -> None:
    assert edited("a b", [Edit(file="f", old="b", new="c")]) == "a c"
    for text in ("a", "b b"):
        with pytest.raises(NotOnce):
            edited(text, [Edit(file="f", old="b", new="c")])


def test_mutations_share_a_tree_unless_one_touches_the_rows_or_the_lines_of_the_other() -> None:
    apart = [mutation("a", "1"), mutation("b", "2", spoils=("3",)), mutation("c", "4", spoils=("3",))]
    assert len(grouped(apart)) == 1
    assert len(grouped([mutation("a", "1"), mutation("b", "1")])) == 2
    assert len(grouped([mutation("a", "1"), mutation("b", "2", spoils=("1",))])) == 2
    assert len(grouped([mutation("a", "1", old="x\ny"), mutation("b", "2", old="y")])) == 2


def test_a_row_that_was_not_run_is_broken_and_lateness_counts_only_where_it_is_meant() -> None:
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
    """What a module of this name raises."""
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


def test_lateness_is_told_from_what_is_wrong() -> None:
    own = raised(AssertionError("x"))
    assert of_one_row(raised(Late("x"))) is Verdict.LATE
    assert of_one_row(raised(ExceptionGroup("rows", [raised(Late("x")), own]))) is Verdict.KILLED


def test_a_failure_to_bring_the_case_about_kills_nothing_but_one_to_be_told_does() -> None:
    assert of_one_row(run_as("disturbances.py", "raise AssertionError('no Pod')")) is Verdict.BROKEN
    untold = "def told():\n  def wait():\n    raise NotInTime('x')\n  wait()\ntold()"
    assert of_one_row(run_as("disturbances.py", untold)) is Verdict.KILLED
    assert of_one_row(run_as("disturbances.py", untold.replace("told", "runs"))) is Verdict.BROKEN


def test_rows_of_one_test_have_verdicts_of_their_own() -> None:
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


def test_the_report_tells_killed_survived_and_broken_apart() -> None:
    report = """<testsuites><testsuite>
      <testcase name="test[one]"><properties><property name="seconds" value="1"/>
        <property name="one" value="killed it said so"/></properties><failure/></testcase>
      <testcase name="test[two]"/>
      <testcase name="test[three+four]"><properties><property name="three" value="killed said"/>
        <property name="three" value="broken teardown"/></properties><failure/><error/></testcase>
      <testcase name="test[five]"><failure/></testcase>
    </testsuite></testsuites>"""
    assert mutants.results(report) == {
        "one": (Verdict.KILLED, "it said so"),
        "two": (Verdict.SURVIVED, ""),
        "three": (Verdict.KILLED, "said"),
        "four": (Verdict.SURVIVED, ""),
        "five": (Verdict.BROKEN, ""),
    }
