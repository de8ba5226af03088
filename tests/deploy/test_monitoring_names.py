"""Rules and dashboard name only metrics and settings that there are."""

import re
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from metrics_page import metrics_page
from monitoring_queries import FOLDER, list_queries, read_dashboard, read_rules
from seqserve.config import ServerConfig
from seqserve.metrics import Metrics

QUERIES = list_queries()
RULES = read_rules()
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = read_dashboard()["panels"]
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def names_of(family: Metric) -> set[str]:
    """The names of the samples of a metric."""
    return {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}


EXPORTED = {name for family in Metrics().registry.collect() for name in names_of(family)}

DESCRIBED = set(re.findall(r"^\| `(\w+)`", metrics_page(), re.MULTILINE))


def test_every_query_is_read() -> None:
    """What a file has is what the tests run."""
    text = "".join((FOLDER / name).read_text() for name in ("rules.yaml", "dashboard.json"))
    num_variables = text.count('"query": "label_values(')
    num_expressions = len(re.findall(r'^ +(?:- )?expr: |"expr": ', text, re.MULTILINE))
    assert len(QUERIES) == num_variables + num_expressions


@pytest.mark.parametrize("place", QUERIES)
def test_every_name_is_exported_or_recorded(place: str) -> None:
    """A metric that is renamed leaves no dead panel."""
    query = re.sub(r'"[^"]*"', '""', QUERIES[place])
    recorded = set(re.findall(r"\b\w+:[\w:]+", query))
    assert recorded <= RECORDED
    for name in recorded:
        query = query.replace(name, "")
    exported = set(re.findall(r"\b(?:seqserve|process|python)_\w+", query))
    assert exported <= EXPORTED
    assert recorded | exported or query.startswith("up{")


def test_every_metric_that_is_shown_is_described() -> None:
    """In METRICS.md, by its own name."""
    used = {name for query in QUERIES.values() for name in re.findall(r"\bseqserve_\w+", query)}
    used = {name for name in used if name in EXPORTED}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= DESCRIBED


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    """It waits, has a severity, and names no setting that there is not."""
    assert re.fullmatch(r"\d+m", alert["for"])
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description"}
    words = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", alert["annotations"]["description"]))
    reasons = {"queue_full", "tokens_full", "bytes_full", "non_finite"}
    metrics = {word for word in words if word.startswith("seqserve_")}
    assert metrics <= DESCRIBED
    assert words - metrics - reasons <= set(ServerConfig.model_fields)


def test_every_alert_is_tested() -> None:
    """It fires once in rules_test.yaml."""
    tests = (FOLDER / "rules_test.yaml").read_text(encoding="utf-8")
    fired = re.findall(r'alertname="(\w+)"', tests)
    assert sorted(fired) == sorted(alert["alert"] for alert in ALERTS)


def test_memory_is_compared_with_the_limit_of_the_deployment() -> None:
    """Nine tenths of it."""
    path = FOLDER.parent / "kustomize" / "base" / "deployment.yaml"
    pod = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    limit = pod["containers"][0]["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    (expression,) = [one["expr"] for one in ALERTS if one["alert"] == "SeqserveMemoryHigh"]
    assert int(expression.split()[-1]) == int(0.9 * int(limit.removesuffix("Gi")) * 2**30)


def test_panels_lie_beside_each_other() -> None:
    """Each has a number of its own, a text, a unit and a place that no other has."""
    places = [
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + row)
        for panel in PANELS
        for column in range(panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(column for column, _ in places) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_kustomization_takes_the_files_themselves() -> None:
    """Both, under the names that are given for them."""
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    files = [one["files"] for one in yaml.safe_load(text)["configMapGenerator"]]
    assert files == [["rules.yaml"], ["dashboard.json"]]
