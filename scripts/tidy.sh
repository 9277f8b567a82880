#!/usr/bin/env bash
# Runs the pinned clang-tidy over the .cpp files given, or over all of them (slow: LibTorch's headers take half a minute
# a file). Needs build/release to be configured, with tests if tests are to be checked; it need not be built.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

database=$root/build/release/compile_commands.json
[ -e "$database" ] || die 2 "there is no $database: run scripts/quickstart.sh or scripts/test.sh first"
ensure_tool clang-tidy "$clang_tidy_version" || exit 1

# clang reads neither GCC's precompiled header nor the flags that only GCC knows.
mkdir -p "$root/build/tidy"
sed -E 's/ -include [^ ]*cmake_pch\.hxx(\\")?//; s/ -(Winvalid-pch|fpch-preprocess|Wshadow=local|Werror)//g' \
  "$database" >"$root/build/tidy/compile_commands.json"

if [ $# != 0 ]; then
  files=("$@")
else
  mapfile -t files < <(sed -n 's/^  "file": "\(.*\.cpp\)".*/\1/p' "$database")
fi
say "clang-tidy over ${#files[@]} files"
printf '%s\0' "${files[@]}" |
  xargs -0 --max-args=1 --max-procs="$(nproc)" "$tools_venv/bin/clang-tidy" -p "$root/build/tidy" --quiet 2>&1 |
  { grep -vE '^[0-9]+ warnings? generated' || true; }
