"""The mutations fit the tree and the failure table, and their verdicts are drawn with care."""

from pathlib import Path

import pytest

from failures import mutants, verdict
from failures.cases import CASES
from failures.mutation import (
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
from failures.mutations import EXEMPT, MUTATIONS, NOT_YET
from tes_client import StillWaiting
from waiting import NotInTime

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
    wanted = {case.id for case in CASES if case.section not in NOT_YET}
    assert uncovered(wanted, MUTATIONS, EXEMPT) == (set(), set())


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


def test_only_what_a_row_asserts_kills() -> None:
    waiting = StillWaiting.__new__(StillWaiting)
    own = raised(AssertionError("x"))
    assert verdict.judge(own, in_test=True)[0] is Verdict.KILLED
    assert verdict.judge(own, in_test=False)[0] is Verdict.BROKEN
    assert verdict.judge(raised(NotInTime("x")), in_test=True)[0] is Verdict.KILLED
    assert verdict.judge(raised(RuntimeError("x")), in_test=True)[0] is Verdict.BROKEN
    group = raised(ExceptionGroup("in a TaskGroup", [raised(waiting)]))
    assert verdict.judge(group, in_test=True)[0] is Verdict.KILLED
    mixed = raised(ExceptionGroup("in a TaskGroup", [own, raised(RuntimeError("x"))]))
    assert verdict.judge(mixed, in_test=True)[0] is Verdict.BROKEN


def test_lateness_is_told_from_what_is_wrong() -> None:
    class Case:
        within = 1

    def look(case: Case) -> None:
        assert case.within > 2

    with pytest.raises(AssertionError) as caught:
        look(Case())
    assert verdict.judge(caught.value, in_test=True)[0] is Verdict.LATE


def test_a_failure_to_bring_the_case_about_kills_nothing(tmp_path: Path) -> None:
    source = "def act():\n    raise AssertionError('no Pod')\n"
    scope: dict[str, object] = {}
    exec(compile(source, str(tmp_path / "disturbances.py"), "exec"), scope)  # noqa: S102
    act = scope["act"]
    assert callable(act)
    with pytest.raises(AssertionError) as caught:
        act()
    assert verdict.judge(caught.value, in_test=True)[0] is Verdict.BROKEN


def test_the_report_tells_killed_survived_and_broken_apart() -> None:
    report = """<testsuites><testsuite>
      <testcase name="test[one]"><properties><property name="verdict" value="killed"/>
        <property name="words" value="said"/></properties><failure/></testcase>
      <testcase name="test[two]"/>
      <testcase name="test[three]"><failure/></testcase>
      <testcase name="test[four]"><properties><property name="verdict" value="killed"/><property name="words"
        value="said"/><property name="verdict" value="broken"/></properties><failure/><error/></testcase>
    </testsuite></testsuites>"""
    assert mutants.results(report) == {
        "one": (Verdict.KILLED, "said"),
        "two": (Verdict.SURVIVED, ""),
        "three": (Verdict.BROKEN, ""),
        "four": (Verdict.KILLED, "said"),
    }
