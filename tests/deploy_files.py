"""Files of ``deploy/`` that follow from others: ``python tests/deploy_files.py`` writes them.

The PrometheusRule is the rules file as an object of the cluster; the chart's schema has the
settings of the server, with their ranges.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seqserve.config import ServerConfig

FOLDER = Path(__file__).parents[1] / "deploy"
RULE = FOLDER / "kustomize" / "components" / "monitoring" / "prometheusrule.yaml"
SCHEMA = FOLDER / "helm" / "seqserve" / "values.schema.json"
GIVEN_ELSEWHERE = {
    *("host", "port", "health_port", "metrics_port", "models", "device", "threads"),
    *("tls_certificate", "tls_key", "tls_client_ca", "token_file", "token"),
}
"""Settings that follow from other values of the chart, or belong into a Secret."""
_RULE_HEAD = """\
# Written by `make deploy-files` from deploy/monitoring/rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: seqserve
  labels:
    app.kubernetes.io/name: seqserve
spec:
"""


def prometheus_rule() -> str:
    """The rules as the Prometheus Operator takes them."""
    lines = (FOLDER / "monitoring" / "rules.yaml").read_text(encoding="utf-8").splitlines()
    return _RULE_HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def values_schema() -> str:
    """The chart's schema, with the settings as they are now."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    fields = ServerConfig.model_json_schema()["properties"]
    schema["properties"]["settings"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["max_request_seconds", "drain_seconds"],
        "properties": {
            name: {key: value for key, value in field.items() if key not in ("title", "default")}
            for name, field in fields.items()
            if name not in GIVEN_ELSEWHERE
        },
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(), encoding="utf-8")
    SCHEMA.write_text(values_schema(), encoding="utf-8")
