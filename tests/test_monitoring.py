"""Alerts, scrapes and dashboard: true by promtool, complete in the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.monitoring import ALERTS, DASHBOARD, METRIC, alerts, queries_of_dashboard
from thor.domain import diagnosis
from thor.domain.findings import Findings
from thor.domain.trading import Trading
from thor.runtime.settings import PROCESSES, ROOT, Settings

RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
RULE_TESTS = ROOT / "tests" / "alerts_test.yml"


def promtool(*words: str) -> None:
    """Fails with what promtool says."""
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    done = subprocess.run([binary, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_no_fault_in_configuration_and_rules() -> None:
    promtool("check", "config", "config/prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", str(RULE_TESTS))


def test_every_alert_has_a_rule_test() -> None:
    tested = {test["name"] for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]}
    assert {rule["alert"] for rule in alerts()} <= tested


def test_every_process_is_scraped_on_its_port() -> None:
    (job,) = yaml.safe_load((ROOT / "config" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {one["labels"]["process"]: one["targets"] for one in job["static_configs"]}
    settings = Settings.from_env({})
    assert scraped == {name: [f"127.0.0.1:{settings.health_port(name)}"] for name in PROCESSES}


def anchors() -> set[str]:
    """What can be linked to in the runbook."""
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in headings()}


def headings() -> list[str]:
    return re.findall(r"^#+ (.+)$", RUNBOOK, re.M)


def test_every_alert_says_how_bad_what_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operations.md"
        assert anchor == rule["alert"].lower()
        assert anchor in anchors(), f"docs/operations.md: no entry {rule['alert']}"


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone() -> None:
    told = {title for title in headings() if title.startswith("Thor") and " " not in title}
    assert told == {rule["alert"] for rule in alerts()}


def test_the_runbook_has_an_entry_for_every_line_of_the_doctor() -> None:
    nothing = Findings([], "all", (), [], "away", "away", {}, None, [], {}, None, {}, {}, [], Trading({}))
    lines = {line.name for line in diagnosis.judge(nothing, pre_open=True)}
    told = {title.removeprefix("doctor ") for title in headings() if title.startswith("doctor ")}
    assert told == lines


def test_the_dashboard_asks_only_for_metrics_and_every_panel_has_a_query() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert all(panel["targets"] for panel in dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(METRIC.search(query) for query in queries_of_dashboard())


def test_the_rules_stand_beside_the_configuration_that_names_them() -> None:
    named = yaml.safe_load((ROOT / "config" / "prometheus.yml").read_text())["rule_files"]
    assert named == [ALERTS.name]
