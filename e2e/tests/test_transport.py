"""The environment chooses how the recorders of all releases of a run work."""

import pytest

from poiesis_e2e.transport import files_only, transport


def test_reports_use_the_gateway_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POIESIS_E2E_TRANSPORT", raising=False)
    assert transport() == "gateway"


def test_environment_chooses_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_E2E_TRANSPORT", "postgres")
    assert transport() == "postgres"


def test_unknown_transport_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_E2E_TRANSPORT", "pigeon")
    with pytest.raises(ValueError, match="must be one of gateway, postgres, got 'pigeon'"):
        transport()


@pytest.mark.parametrize(("word", "expected"), [(None, False), ("false", False), ("true", True)])
def test_environment_chooses_files_only(
    monkeypatch: pytest.MonkeyPatch, word: str | None, expected: bool
) -> None:
    monkeypatch.delenv("POIESIS_E2E_FILES_ONLY", raising=False)
    if word is not None:
        monkeypatch.setenv("POIESIS_E2E_FILES_ONLY", word)
    assert files_only() is expected


def test_other_word_for_files_only_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_E2E_FILES_ONLY", "1")
    with pytest.raises(ValueError, match="must be one of false, true, got '1'"):
        files_only()
