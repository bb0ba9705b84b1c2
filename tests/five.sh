#!/usr/bin/env bash
# `make test` five times: alone twice, beside a load on two cores twice, and in a network namespace with loopback alone
# (as root). Prints what each took; fails if one failed. `tests/five.sh offline` runs one kind; any number may be named.
set -uo pipefail
cd "$(dirname "$0")/.."

LOAD='while True: pass'
declare -a loaders=()
trap 'kill "${loaders[@]}" 2>/dev/null' EXIT

busy() {
  for _ in 1 2; do .venv/bin/python -c "$LOAD" & loaders+=($!); done
  make test
  local code=$?
  kill "${loaders[@]}"
  wait "${loaders[@]}" 2>/dev/null
  loaders=()
  return $code
}

offline() { unshare --net bash -c 'ip link set lo up && exec make test'; }

failed=0
summary=()
for kind in "${@:-alone alone busy busy offline}"; do
  for one in $kind; do
    since=$SECONDS
    case $one in alone) make test ;; busy) busy ;; offline) offline ;; *) echo "$one: allowed are alone, busy, offline" >&2; exit 2 ;; esac
    code=$?
    summary+=("$one: $((SECONDS - since)) s, exit code $code")
    [ $code = 0 ] || failed=1
  done
done
printf '%s\n' "${summary[@]}"
exit $failed
