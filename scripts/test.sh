#!/usr/bin/env bash
# Installs what is missing, builds optp with its tests and runs them. Arguments go to ctest: scripts/test.sh -R Shard
# OPTP_PRESET=asan builds and tests under the address and undefined-behaviour sanitizers (an hour on two cores),
# OPTP_PRESET=tsan what has threads under the thread sanitizer.
# OPTP_SHARED_DATA may name a folder of real texts and tokenizer files, which some tests read.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up tests
left_out=()

test_python=$python_venv/bin/python
if ! ensure_test_packages; then
  test_python=
  left_out+=("the comparisons with transformers and tokenizers and the runs under torchrun: ${test_packages[*]} could not be installed")
fi
clang_format=$tools_venv/bin/clang-format
if ! ensure_tool clang-format "$clang_format_version"; then
  clang_format=
  left_out+=("the check of the formatting: clang-format $clang_format_version could not be installed")
fi
if [ -z "${OPTP_SHARED_DATA:-}" ]; then
  left_out+=("what reads real texts: OPTP_SHARED_DATA names no folder")
fi

configure_build -DOPTP_BUILD_TESTS=ON "-DOPTP_TEST_PYTHON=$test_python" "-DOPTP_CLANG_FORMAT=$clang_format" \
  "-DOPTP_SHARED_DATA=${OPTP_SHARED_DATA:-}"
build_target all
status=0
# One more than there are cores: ranks wait for each other.
(cd "$root" && ctest --preset "$preset" --parallel "$(($(nproc) + 1))" "$@") || status=$?

for reason in "${left_out[@]}"; do
  say "left out: $reason"
done
[ ${#left_out[@]} != 0 ] || say "nothing was left out"
exit "$status"
