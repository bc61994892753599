"""What the alerts and the dashboard ask of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from thor.runtime.settings import ROOT

ALERTS = ROOT / "config" / "alerts.yml"
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
#: A metric of a process: ours, or of the Python client.
METRIC = re.compile(r"\b(?:thor|process|python)_[a-z_]+\b(?!:)")


def rules() -> Iterator[dict[str, Any]]:
    """Every rule."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    """The rules that alert."""
    return [rule for rule in rules() if "alert" in rule]


def queries_of_alerts() -> list[str]:
    """Their expressions."""
    return [rule["expr"] for rule in rules()]


def queries_of_dashboard() -> list[str]:
    """The expressions of every panel."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
