"""The queries of deploy/monitoring: of the rules, of the dashboard, and of its variables."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "monitoring"
VARIABLES = {"$__rate_interval": "1m", "$job": "seqserve", "$model": "tiny|sentence|long"}
"""Of the dashboard, with what Grafana would put for them."""
_THRESHOLD = re.compile(r"(?P<series>\S+) [<>] [\d.]+")


def read_rules() -> list[dict[str, Any]]:
    """The rules of all groups."""
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def read_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    text = (FOLDER / "dashboard.json").read_text(encoding="utf-8")
    dashboard: dict[str, Any] = json.loads(text)
    return dashboard


def list_queries() -> dict[str, str]:
    """PromQL by where it stands; alerts without their thresholds, so that health has data too."""
    queries: dict[str, str] = {}
    for rule in read_rules():
        if "alert" in rule:
            compared = _THRESHOLD.fullmatch(rule["expr"])
            assert compared, f"{rule['alert']} is no series with a threshold: {rule['expr']}"
            queries[rule["alert"]] = compared["series"]
        else:
            queries[rule["record"]] = rule["expr"]
    for place, query in _find_queries(read_dashboard(), ""):
        queries[place] = _substitute(query)
    return queries


def _find_queries(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """All that Grafana would ask Prometheus for, wherever it stands."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _find_queries(item, f"{place}[{index}]")
    elif isinstance(node, dict):
        here = f"{place} {node.get('title') or node.get('name') or ''}".strip()
        for key, value in node.items():
            if key == "expr":
                yield f"{here} {node['refId']}", value
            elif key == "query" and node["type"] == "query":
                found = re.fullmatch(r"label_values\((?P<series>.+), (?P<label>\w+)\)", value)
                assert found, f"{here} is no label_values(series, label): {value}"
                yield here, f"count by ({found['label']}) ({found['series']})"
            else:
                yield from _find_queries(value, here)


def _substitute(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, f"a variable that there is not: {query}"
    return query
