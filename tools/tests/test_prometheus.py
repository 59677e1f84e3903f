import pytest

from poiesis_lab import host, prometheus
from poiesis_lab.errors import LabError


@pytest.fixture(autouse=True)
def _not_found_before():
    prometheus.promtool.cache_clear()
    yield
    prometheus.promtool.cache_clear()


def test_promtool_on_the_path_is_used(monkeypatch, tmp_path):
    program = tmp_path / "promtool"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prometheus.promtool() == program


def test_without_debians_tools_the_error_names_the_program(monkeypatch):
    monkeypatch.setattr(host, "find", lambda _: None)
    with pytest.raises(LabError, match="promtool is required to test alerts: put it on the PATH"):
        prometheus.promtool()
