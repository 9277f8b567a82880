#!/usr/bin/env bash
# Runs the pinned clang-tidy over the .cpp files given, or over all of them (slow: 10 seconds
# a file).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up tests
ensure_tool clang-tidy "$clang_tidy_version" || exit 1

# A compile database with a line a file, without GCC's precompiled header and the flags that clang does not know.
tree=$root/build/tidy
cmake -S "$root" --preset release -B "$tree" "-DTorch_DIR:PATH=$torch_dir" -DOPTP_UNITY=OFF -DOPTP_BUILD_TESTS=ON >&2
sed --in-place=.gcc -E 's/ -include .*cmake_pch\.hxx(\\")?//; s/ -(Winvalid-pch|fpch-preprocess|fopenmp|Wshadow=local|Werror)//g' \
  "$tree/compile_commands.json"

if [ $# != 0 ]; then
  files=("$@")
else
  mapfile -t files < <(sed -n 's/^  "file": "\(.*\.cpp\)".*/\1/p' "$tree/compile_commands.json")
fi
say "clang-tidy over ${#files[@]} files"
printf '%s\0' "${files[@]}" |
  xargs -0 --max-args=1 --max-procs="$(nproc)" "$tools_venv/bin/clang-tidy" -p "$tree" --quiet 2>&1 |
  { grep -vE '^[0-9]+ warnings? generated' || true; }
