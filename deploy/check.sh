#!/usr/bin/env bash
# Builds every kustomization and the chart with each of its examples as they would be applied, and
# holds the objects against the schemas of several Kubernetes versions (KUBERNETES_VERSIONS replaces
# them) and of the extensions that are used. Checks rules and alerts, and lints chart and Dockerfiles.
# `make programs` fetches what it runs into PROGRAMS. Stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")"
programs=${PROGRAMS:-../.programs}
PATH="$programs/bin:$PATH"
read -ra versions <<< "${KUBERNETES_VERSIONS:-1.35 1.36 1.37}"

missing=()
for tool in kubectl helm kubernetes-validate hadolint promtool node; do
  command -v "$tool" > /dev/null || missing+=("$tool")
done
for path in "$programs/python/bin/python" "$programs/node_modules/@kubernetes-models"; do
  [ -e "$path" ] || missing+=("$path")
done
if ((${#missing[@]})); then
  echo "deploy-check needs ${missing[*]}: \`make programs\` fetches them" >&2
  exit 1
fi

objects=$(mktemp --directory)
trap 'rm -rf "$objects"' EXIT

for folder in kustomize/base kustomize/overlays/* monitoring; do
  kubectl kustomize "$folder" > "$objects/kustomize-$(basename "$folder").yaml"
done
echo "kustomizations are built"

quietly() { "$@" 2> >(grep --invert-match 'found symbolic link' >&2); } # rules.yaml is one, on purpose
chart=helm/seqserve
for values in "$chart"/values.yaml "$chart"/examples/*.yaml; do
  quietly helm lint --strict --quiet --values "$values" "$chart"
  quietly helm template seqserve "$chart" --values "$values" \
    > "$objects/helm-$(basename "$values")"
done
quietly helm package --destination "$objects" "$chart" > /dev/null
echo "chart is linted, built and packed"

for version in "${versions[@]}"; do
  kubernetes-validate --no-warn --quiet --strict --kubernetes-version "$version" "$objects"/*.yaml
  echo "objects are valid for Kubernetes $version"
done
"$programs/python/bin/python" - "$objects"/*.yaml > "$objects/all.json" << 'END'
import json, sys, yaml

texts = (open(path).read() for path in sys.argv[1:])
print(json.dumps([one for text in texts for one in yaml.load_all(text, yaml.CSafeLoader) if one]))
END
node schemas.mjs "$programs/node_modules" < "$objects/all.json"
echo "objects of KEDA, Prometheus Operator and Gateway API are valid"

promtool check rules monitoring/rules.yaml > /dev/null
promtool test rules monitoring/rules_test.yaml > /dev/null
echo "rules are valid, and alerts fire when they should"

hadolint Dockerfile Dockerfile.models
echo "Dockerfiles are clean"
