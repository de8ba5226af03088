"""METRICS.md is what the server exports."""

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from metrics_page import metrics_page
from seqserve.metrics import Metrics

PAGE = Path(__file__).parents[2] / "METRICS.md"


def test_page_is_up_to_date() -> None:
    """Every metric with type, labels and meaning; ``make metrics-page`` writes it again."""
    assert PAGE.read_text(encoding="utf-8") == metrics_page()


def test_every_metric_says_its_unit() -> None:
    """In its name and in its help text."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            for unit in ("seconds", "bytes"):
                assert (unit in family.name) == (f"in {unit}" in family.documentation)
