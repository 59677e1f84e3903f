import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from poiesis_api.errors import InvalidQuery
from poiesis_api.queries import Filter, ListQuery, page_token, parse_list_query, prefix_range, read_token
from poiesis_documents.documents import View
from poiesis_models.states import TesState


def test_without_parameters_a_page_is_minimal():
    assert parse_list_query(MultiDict(), "me") == ListQuery(
        filter=Filter(), page_size=256, before=None, view=View.MINIMAL
    )


def test_all_parameters():
    wanted = Filter(name_prefix="n", state=TesState.QUEUED, tags=(("a", "1"), ("b", "")))
    query = MultiDict(
        [
            ("name_prefix", "n"),
            ("state", "QUEUED"),
            ("tag_key", "a"),
            ("tag_value", "1"),
            ("tag_key", "b"),
            ("page_size", "2047"),
            ("page_token", page_token(5, wanted, "me")),
            ("view", "FULL"),
        ]
    )
    assert parse_list_query(query, "me") == ListQuery(filter=wanted, page_size=2047, before=5, view=View.FULL)


@given(st.integers(0, 2**63 - 1), st.text(), st.text())
def test_a_token_comes_back(seq, prefix, owner):
    wanted = Filter(name_prefix=prefix)
    token = page_token(seq, wanted, owner)
    assert read_token(token, wanted, owner) == seq
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "other", [Filter(name_prefix="a"), Filter(state=TesState.QUEUED), Filter(tags=(("a", ""),))]
)
def test_a_token_of_another_list_is_refused(other):
    token = page_token(1, Filter(), "me")
    with pytest.raises(InvalidQuery):
        read_token(token, other, "me")
    with pytest.raises(InvalidQuery):
        read_token(token, Filter(), "you")


@given(st.text())
def test_any_text_is_a_token_or_refused(text):
    with pytest.raises(InvalidQuery):
        read_token(text, Filter(), "me")


@given(st.text(min_size=1), st.text())
def test_range_of_a_prefix_has_its_texts_only(prefix, text):
    for candidate in (text, prefix + text):
        first, after = (None if one is None else one.encode() for one in prefix_range(prefix))
        in_range = first <= candidate.encode() and (after is None or candidate.encode() < after)
        assert in_range == candidate.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "after"),
    [("a", "b"), ("a\U0010ffff", "b"), ("\ud7ff", "\ue000"), ("\U0010ffff", None)],
)
def test_range_ends_at_the_next_text(prefix, after):
    assert prefix_range(prefix) == (prefix, after)
