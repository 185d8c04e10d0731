#!/usr/bin/env bash
# The demo: (a) rank plans for a 10-trillion-parameter model on 220,000 GB300 and say why the winner wins; (b) plan a small
# Llama for this host, predict its step, train it on real text with the same plan file, and compare.
# usage: scenarios/demo.sh [OUTPUT FOLDER]     with `exactmap` on the path; `make demo` sees to that
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-out/demo}
steps=${EXACTMAP_DEMO_STEPS:-300}
mkdir -p "$out"

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
show() {
  printf '$ exactmap %s\n' "$*"
  exactmap "$@"
}
[ -t 1 ] || say() { printf '\n== %s\n' "$1"; }

say "(a) 220,000 GB300: which plan, and why?"
show plan "$here/gb300-220k.yaml" -o "$out/gb300-220k.plan" --finalists 3
show simulate "$out/gb300-220k.plan" -o "$out/gb300-220k"

say "(b) this host: measure, plan, predict, train, compare"
show data -o "$out/data"
show calibrate --quick --scenario "$here/cpu-host.yaml" -o "$out/hardware-profile.json"
show plan "$here/cpu-host.yaml" --host "$out/hardware-profile.json" -o "$out/cpu-host.plan" --no-explain
show simulate "$out/cpu-host.plan" -o "$out/predicted"
show run "$out/cpu-host.plan" --data "$out/data" --steps "$steps" -o "$out/executed"
show compare "$out/predicted" "$out/executed" -o "$out/compared"
show sample "$out/executed/checkpoint" --prompt "def " --tokens 300 --temperature 0.7

say "pictures"
printf '%s\n' "$out/gb300-220k/timeline.png  the predicted step on 220,000 GPUs, 32 of its pipeline ranks" \
  "$out/gb300-220k/memory.png    memory of its first and last rank" \
  "$out/compared/comparison.png  predicted above executed, rank by rank" \
  "$out/compared/comparison.trace.json  the same for ui.perfetto.dev"
