#!/usr/bin/env bash
# Put the kubeconfig from the environment where the stack files look for it, readable by nobody else.
set -euo pipefail

[[ -n ${KUBECONFIG_CONTENT:-} ]] || { echo "KUBECONFIG_CONTENT is empty: this environment has no cluster" >&2; exit 1; }
umask 077
mkdir -p ~/.kube
printf '%s\n' "$KUBECONFIG_CONTENT" >~/.kube/config
