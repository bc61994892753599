from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from thor.runtime import config
from thor.runtime.config import BadConfig, load_config, read, shown


class Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    max: int = Field(default=1, le=100_000)
    wait_s: float = 1.0


class Ingester(BaseModel):
    model_config = ConfigDict(extra="forbid")
    batch: Batch = Batch()
    country: str = "USA"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THOR_CONFIG_DIR", str(tmp_path))
    return tmp_path / "ingester.yaml"


def problem(path: Path, text: str, env: dict[str, str] | None = None) -> str:
    path.write_text(text)
    with pytest.raises(BadConfig) as raised:
        load_config("ingester", Ingester, env or {})
    return str(raised.value).removeprefix(f"{shown(path.parent)}/")


def test_a_value_out_of_range_is_shown_where_it_stands(written: Path) -> None:
    found = problem(written, "country: US\nbatch:\n  max: 700000\n")
    assert found == "ingester.yaml:3:8: batch.max: must be at most 100000 (got 700000)"


def test_an_unknown_key_is_an_error_where_it_stands(written: Path) -> None:
    assert problem(written, "batch:\n  maxx: 7\n") == "ingester.yaml:2:3: batch.maxx: unknown key"


def test_a_key_given_twice_is_an_error_with_both_lines(written: Path) -> None:
    found = problem(written, "country: US\nbatch: {}\ncountry: DE\n")
    assert found == "ingester.yaml:3:1: country: given twice, first in line 1"


def test_what_is_not_yaml_is_one_line(written: Path) -> None:
    found = problem(written, "batch: [1,\n")
    assert found.startswith("ingester.yaml:2:1: not YAML: ")
    assert "\n" not in found


def test_a_tag_is_refused(written: Path) -> None:
    assert "expected no tag" in problem(written, "country: !!python/name:os.system\n")


def test_a_file_that_is_missing_is_named(written: Path) -> None:
    with pytest.raises(BadConfig, match=r"ingester\.yaml: cannot be read: No such file"):
        load_config("ingester", Ingester, {})


def test_the_environment_goes_before_the_file(written: Path) -> None:
    written.write_text("batch: {max: 5, wait_s: 2}\n")
    loaded = load_config("ingester", Ingester, {"THOR_INGESTER__BATCH__MAX": "9", "THOR_INGESTER__COUNTRY": "NO"})
    assert (loaded.batch.max, loaded.batch.wait_s, loaded.country) == (9, 2.0, "NO")


def test_an_error_from_the_environment_names_the_variable(written: Path) -> None:
    found = problem(written, "batch: {max: 5}\n", {"THOR_INGESTER__BATCH__MAX": "many"})
    assert found == "THOR_INGESTER__BATCH__MAX: batch.max: must be a whole number (got many)"


def test_an_unknown_variable_of_a_process_is_an_error(written: Path) -> None:
    assert problem(written, "", {"THOR_INGESTER__BACH": "1"}) == "THOR_INGESTER__BACH: bach: unknown key"


def test_a_variable_of_no_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THOR_INGESTR__BATCH", "1")
    with pytest.raises(BadConfig, match="THOR_INGESTR__BATCH: expected THOR_ and one of INGESTER"):
        config.check_all()


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("[NO, on, 8:30, 0o17, 017, 1_000, 0.10, 1e3, ~, 2024-01-01, 'true', true]\n")
    expected = ["NO", "on", "8:30", 15, 17, "1_000", Decimal("0.10"), Decimal("1e3"), None, "2024-01-01", "true", True]
    assert read(path).data == expected


def test_every_process_has_a_configuration_that_holds() -> None:
    config.check_all()
