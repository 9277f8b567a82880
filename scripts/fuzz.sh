#!/usr/bin/env bash
# Builds the fuzzers of the file readers (clang) and runs them one after the other: scripts/fuzz.sh [SECONDS [NAME...]]
# Ten minutes each by default. What they learn stays in build/fuzz/corpus; a finding is a file in build/fuzz/findings.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

seconds=${1:-600}
names=("${@:2}")
[ ${#names[@]} != 0 ] || names=(
  safetensors index config pickle torch_file script_pickle script_file   # weights
  utf8 words bpe token_file tokenize choices                             # texts and tokens
  options metrics trainer_state manifest shard_file                      # runs
  launch_env rank_status node_store                                      # ranks
)

set_up build
command -v clang++ >/dev/null || die 2 "clang++ is missing: apt-get install clang libclang-rt-dev"
cd "$root"
cmake --preset fuzz "-DTorch_DIR:PATH=$torch_dir" >&2
cmake --build --preset fuzz >&2
mkdir -p build/fuzz/findings
ulimit -s 1024  # KiB: a reader that calls itself for every level of its input is found with small ones
for name in "${names[@]}"; do
  mkdir -p "build/fuzz/corpus/$name"
  say "$name: $seconds s"
  "build/fuzz/tests/fuzz/${name}_fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$name-" "build/fuzz/corpus/$name" \
    "tests/fuzz/corpus/$name" 2>"build/fuzz/$name.log" ||
    die 1 "$name: a finding; see build/fuzz/$name.log and build/fuzz/findings"
  say "$name: no finding in $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$name.log") inputs"
done
