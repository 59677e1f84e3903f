"""The environment chooses the transport of all releases of a run."""

import pytest

from poiesis_e2e.transport import transport


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
