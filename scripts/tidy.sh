#!/usr/bin/env bash
# Runs the pinned clang-tidy over the .cpp files given (15 seconds each, most of them in LibTorch's headers), or over
# all of them, five at once as a unity build compiles them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up tests
ensure_tool clang-tidy "$clang_tidy_version" || exit 1

unity=ON
[ $# = 0 ] || unity=OFF
# A compile database without GCC's precompiled header and the flags that clang does not know.
tree=$root/build/tidy
cmake -S "$root" --preset release -B "$tree" "-DTorch_DIR:PATH=$torch_dir" -DOPTP_UNITY=$unity -DOPTP_BUILD_TESTS=ON >&2
sed --in-place=.gcc -E 's/ -include .*cmake_pch\.hxx(\\")?//; s/ -(Winvalid-pch|fpch-preprocess|fopenmp|Wshadow=local|Werror)//g' \
  "$tree/compile_commands.json"

if [ $# != 0 ]; then
  files=("$@")
else
  mapfile -t files < <(sed -n 's/^  "file": "\(.*\.c[px][px]\)".*/\1/p' "$tree/compile_commands.json" | grep -v cmake_pch)
fi
say "clang-tidy over ${#files[@]} files"
printf '%s\0' "${files[@]}" |
  xargs -0 --max-args=1 --max-procs="$(nproc)" "$tools_venv/bin/clang-tidy" -p "$tree" --quiet \
    --checks=-bugprone-suspicious-include 2>&1 |
  { grep -vE '^[0-9]+ warnings? generated' || true; }
