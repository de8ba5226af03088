"""Writes METRICS.md: every metric of the server with its type, its labels and its meaning.

``python tests/metrics_page.py METRICS.md`` does; ``make metrics-page`` calls it.
"""

import sys
from pathlib import Path

from prometheus_client import Info
from prometheus_client.metrics import MetricWrapperBase

from seqserve.metrics import Metrics

_HEAD = """\
# Metrics

`http://HOST:9090/metrics` (`--metrics-port`) is a page for Prometheus. All durations are in
seconds, from half a millisecond to five minutes; labels never have values that callers choose. A
call that named no model of ours has empty `model_name` and `model_version`.

* `code` is the gRPC status code; `reason` says more: the kind of error (`invalid_request`,
  `overloaded`, `deadline`, `unavailable`, `engine`, `non_finite` for a model that came to NaN,
  ...), `cancelled` for callers who left, `unexpected` for a bug, empty for `OK`.
* `phase` is `encode` or `decode` for models that generate, `embed` for encoders.
* For autoscaling: `seqserve_waiting_sequences` plus `seqserve_running_sequences` is the work there
  is, `seqserve_queue_age_seconds` how long it waits, and `seqserve_live_rows` of
  `seqserve_max_rows` how full the running batches are.
* Padding wasted: `rate(seqserve_padding_tokens_total[5m])` beside
  `rate(seqserve_source_tokens_total[5m])`. The mean batch: `rate(seqserve_step_rows_sum[5m]) /
  rate(seqserve_step_rows_count[5m])`.
* Answers spared: `rate(seqserve_response_cache_hits_total[5m])` beside `..._misses_total`; inputs
  that no answer can be kept for count as neither. Hits have no queue, encode or decode duration.

Beside these there are `process_*` (processor time, memory, file descriptors) and `python_*`
(version, garbage collection) of the Prometheus client library.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
"""


def metrics_page() -> str:
    """The whole page."""
    return _HEAD + "".join(map(_row, _list_metrics()))


def _list_metrics() -> list[MetricWrapperBase]:
    metrics = Metrics()
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return sorted(found, key=lambda metric: metric._name)


def _row(metric: MetricWrapperBase) -> str:
    (family,) = metric.describe()
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    if isinstance(metric, Info):
        labels = ", ".join(f"`{label}`" for label in metric._value)
    return f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(metrics_page(), encoding="utf-8")
