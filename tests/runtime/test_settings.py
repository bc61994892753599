from __future__ import annotations

from pathlib import Path

import pytest

from thor.runtime.embedded import make_password
from thor.runtime.settings import PROCESSES, BadSetting, Settings, dotenv


def test_without_a_word_both_servers_are_embedded_below_the_port_base(thor_dir: Path) -> None:
    settings = Settings.from_env({"THOR_DIR": str(thor_dir), "THOR_PORT_BASE": "21000"})
    assert settings.programs == ("postgres", "redis", *PROCESSES)
    assert (settings.api_port, settings.db_port, settings.redis_port) == (21001, 21032, 21079)
    assert [settings.health_port(name) for name in settings.programs[2:]] == [
        21000 + offset for offset in PROCESSES.values()
    ]
    assert settings.provider == "simulator"


def test_servers_of_ones_own_take_the_place_of_the_embedded(thor_dir: Path) -> None:
    env = {"THOR_DIR": str(thor_dir), "DB_HOST": "db", "DB_PASSWORD": "it's \\ here", "REDIS_HOST": "cache"}
    settings = Settings.from_env(env)
    assert settings.programs == tuple(PROCESSES)
    assert settings.redis_url == "redis://cache:6379/0"
    assert settings.dsn == (
        r"host='db' port='5432' dbname='thor' user='thor' password='it\'s \\ here' connect_timeout='5'"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("THOR_PORT_BASE", "80"), ("THOR_PORT_BASE", "x"), ("DATA_PROVIDER", "oracle"), ("REDIS_URL", "http://x")],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        Settings.from_env({name: value})


def test_the_password_is_made_once_and_never_shown(thor_dir: Path) -> None:
    env = {"THOR_DIR": str(thor_dir)}
    first = make_password(Settings.from_env(env), env)
    again = make_password(Settings.from_env(env), env)
    assert first.db_password == again.db_password
    assert len(first.db_password) > 20
    assert first.db_password not in repr(first)
    assert (thor_dir / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_dotenv_is_lines_of_name_and_value(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# servers\nDB_HOST=db\nexport DB_PASSWORD='a=b #c'\n\n")
    assert dotenv(path) == {"DB_HOST": "db", "DB_PASSWORD": "a=b #c"}


def test_a_dotenv_line_that_says_nothing_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("DB_HOST=db\nnonsense\n")
    with pytest.raises(BadSetting, match=r"\.env:2: expected NAME=value, found 'nonsense'"):
        dotenv(path)
