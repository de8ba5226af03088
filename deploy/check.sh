#!/usr/bin/env bash
# Builds the kustomize base as kubectl would apply it.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v kubectl > /dev/null; then
  echo "deploy-check needs kubectl" >&2
  exit 1
fi
kubectl kustomize kustomize/base > /dev/null
echo "kustomize/base builds"
