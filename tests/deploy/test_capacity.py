"""The page on capacity says what the result files say, and the manifests have its thresholds."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.autoscaling import CPU_CHOSEN, PAGE, PATH, QUEUE_CHOSEN, tables
from bench.autoscaling_policy import Behavior
from bench.autoscaling_replica import RESULTS, Costs
from bench.marked_table import put_into
from bench.proxied_replicas_table import PAGE as REPLICAS_PAGE
from bench.proxied_replicas_table import PATH as REPLICAS_PATH
from bench.proxied_replicas_table import table

COMPONENTS = Path(__file__).parents[2] / "deploy" / "kustomize" / "components"


def read(name: str) -> Any:
    """A result file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_figures_are_those_of_the_result_files() -> None:
    """Rounded as they stand there."""
    page = PAGE.read_text(encoding="utf-8")
    parts = read("decode.json")["parts"]
    offline = statistics.median(parts["offline"]["greedy"]["tokens_per_second"]["seqserve"])
    assert f"| {offline:,.0f} tokens/s | {offline / 2:,.0f} tokens/s |" in page
    rate = parts["online"]["max_trials"]["seqserve"]["rate"]
    assert f"| {rate:.0f} calls/s | {rate / 2:.0f} calls/s |" in page
    encode = read("encode.json")["parts"]["all-minilm-l6-v2"]
    seconds = statistics.median(encode["bulk_seconds"]["seqserve_int8"])
    texts = encode["num_texts"] / encode["num_rounds"] / seconds  # a round has texts of its own
    assert f"| {texts:,.0f} texts/s | {texts / 2:,.0f} texts/s |" in page
    memory = parts["online"]["memory"]["seqserve"]
    assert f"{memory['resident_bytes'] / 1e6:.0f} MB resident" in page
    assert f"{memory['private_bytes'] / 1e6:.0f} MB its own" in page
    costs = Costs.read()
    for num_rows in (1, 48, 256):
        assert f"{1000 * costs.step(num_rows):.1f} ms" in page


def test_tables_are_those_of_the_result_files() -> None:
    """`python -m bench.autoscaling` and `python -m bench.proxied_replicas_table` write them."""
    page = PAGE.read_text(encoding="utf-8")
    content = json.loads(PATH.read_text(encoding="utf-8"))
    for name, one in tables(content).items():
        assert put_into(page, name, one) == page
    replicas = json.loads(REPLICAS_PATH.read_text(encoding="utf-8"))
    page = REPLICAS_PAGE.read_text(encoding="utf-8")
    assert put_into(page, "replicas", table(replicas)) == page
    assert all(phase["failures"] == {} for phase in replicas["phases"])


def test_manifests_have_the_chosen_thresholds() -> None:
    """And the simulated autoscalers move as those of the manifests."""
    by_cpu = yaml.safe_load(
        (COMPONENTS / "cpu-autoscaler" / "horizontalpodautoscaler.yaml").read_text("utf-8")
    )["spec"]
    by_queue = yaml.safe_load(
        (COMPONENTS / "queue-autoscaler" / "scaledobject.yaml").read_text("utf-8")
    )["spec"]
    (cpu,), (queue, also_cpu) = CPU_CHOSEN, QUEUE_CHOSEN
    target = by_cpu["metrics"][0]["resource"]["target"]
    assert target == {"type": "Utilization", "averageUtilization": round(100 * cpu.value)}
    of_queue, of_cpu = by_queue["triggers"]
    assert float(of_queue["metadata"]["threshold"]) == queue.value
    assert of_cpu["metricType"] == "Utilization"
    assert float(of_cpu["metadata"]["value"]) == 100 * also_cpu.value
    behavior = Behavior()
    up, down = by_cpu["behavior"]["scaleUp"], by_cpu["behavior"]["scaleDown"]
    period = behavior.up_period_seconds
    assert up["policies"] == [
        {"type": "Percent", "value": behavior.up_percent, "periodSeconds": period},
        {"type": "Pods", "value": behavior.up_pods, "periodSeconds": period},
    ]
    assert down["stabilizationWindowSeconds"] == behavior.down_stabilization_seconds
    (policy,) = down["policies"]
    assert policy["value"] == behavior.down_percent
    assert policy["periodSeconds"] == behavior.down_period_seconds
    assert by_cpu["minReplicas"] == behavior.min_replicas
    assert by_cpu["maxReplicas"] == behavior.max_replicas


def test_a_table_without_a_place_is_refused() -> None:
    """A page that lost its marks is not written as if nothing were."""
    with pytest.raises(ValueError, match=re.escape("has 0 places for the table x; it must have")):
        put_into("nothing", "x", "")
