"""Which key a percent-encoded S3 URL may stand for, as a table."""

import pytest

from poiesis_models.escapes import other_form, unescaped


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("sub%20dir/x.txt", "sub dir/x.txt"),
        ("%C3%A9%e2%98%82", "é☂"),
        ("a%2Fb", "a/b"),
        ("a%25b", "a%b"),
        ("a%2520b", "a%20b"),  # decoded once
        ("50%%20of", "50% of"),
        ("%zz%20", "%zz "),
        ("a+b%20c", "a+b c"),
        ("é %20", "é  "),
    ],
)
def test_escapes_are_decoded_once(text: str, decoded: str):
    assert (unescaped(text), other_form(text)) == (decoded, decoded)


@pytest.mark.parametrize("text", ["", "plain", "100%", "a%2", "%zz", "a b?#é"])
def test_text_without_escapes_has_no_other_form(text: str):
    assert (unescaped(text), other_form(text)) == (text, None)


@pytest.mark.parametrize("text", ["%ff", "%C3", "%ed%a0%80", "\ud800%20"])
def test_escapes_not_utf8_have_no_other_form(text: str):
    assert other_form(text) is None
    with pytest.raises(UnicodeError):
        unescaped(text)
