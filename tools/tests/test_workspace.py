"""The members of the workspace are consistent with their files and licences."""

import tomllib

import pytest
import yaml

from poiesis_lab import services
from poiesis_tools.check import import_contracts
from poiesis_tools.workspace import ROOT, Member, members, reachable

CHART = yaml.safe_load((ROOT / "deployment/helm/poiesis/Chart.yaml").read_text())


def _named(name: str) -> Member:
    return next(one for one in members() if one.name == name)


def test_every_python_package_belongs_to_a_member() -> None:
    found = {path.parent for path in ROOT.glob("*/*/pyproject.toml")} | {
        path.parent for path in ROOT.glob("*/pyproject.toml")
    }
    assert {one.directory for one in members()} == found


def test_a_member_reaches_the_dependencies_of_its_dependencies() -> None:
    assert reachable(_named("poiesis-tof")) == {"poiesis-models", "poiesis-staging", "poiesis-transfer"}
    assert reachable(_named("poiesis-models")) == frozenset()


def test_a_service_may_import_no_other_service() -> None:
    contracts = {tuple(one["source_modules"]): one for one in import_contracts()["contracts"]}
    forbidden = contracts["poiesis_trec",]["forbidden_modules"]
    assert {"poiesis_api", "poiesis_tctl", "poiesis_cli", "poiesis_transfer"} <= set(forbidden)
    assert "poiesis_models" not in forbidden


@pytest.mark.parametrize("member", members(), ids=lambda one: one.name)
def test_every_member_has_licence_and_readme(member: Member) -> None:
    project = tomllib.loads((member.directory / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert len((member.directory / "README.md").read_text().splitlines()) >= 10


@pytest.mark.parametrize("name", [name for name in services.SOURCES if name != "demo"])
def test_every_image_names_the_licence(name: str) -> None:
    dockerfile = (ROOT / services.SOURCES[name].dockerfile).read_text()
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in dockerfile


def test_chart_version_and_licence_match_the_project() -> None:
    version = (ROOT / "VERSION").read_text().strip()
    assert (CHART["version"], CHART["appVersion"]) == (version, version)
    assert CHART["annotations"]["artifacthub.io/license"] == "Apache-2.0"


def _has_image(member: Member) -> bool:
    return (member.directory / "Dockerfile").exists() and (member.directory / "pyproject.toml").exists()


@pytest.mark.parametrize("member", [one for one in members() if _has_image(one)], ids=lambda one: one.name)
def test_image_contains_the_members_it_declares(member: Member) -> None:
    copied = set(services.copied((member.directory / "Dockerfile").read_text()))
    declared = {one for one in members() if one.name in reachable(member) | {member.name}}
    assert {
        str(path.relative_to(ROOT))
        for one in members()
        for path in one.package_directories
        if str(path.relative_to(ROOT)) in copied
    } == {str(path.relative_to(ROOT)) for one in declared for path in one.package_directories}


def test_uv_finds_every_dependency_in_the_workspace() -> None:
    sources = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["sources"]
    assert set(sources) == set().union(*(one.needs for one in members()))
