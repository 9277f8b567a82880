#!/usr/bin/env bash
# Formats the C++ sources with the pinned clang-format; with --check it changes nothing and fails where a file differs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

case "$*" in
  "") mode=(-i) ;;
  --check) mode=(--dry-run --Werror) ;;
  *) die 2 "format.sh does not know '$*': call it alone to format, with --check to look only" ;;
esac
ensure_tool clang-format "$clang_format_version" || exit 1
clang_format=("$tools_venv/bin/clang-format" --style=file "${mode[@]}")
cd "$root"
findings=$(list_sources | xargs -0 --no-run-if-empty "${clang_format[@]}" 2>&1) || {
  names=$(sed -n 's/:.*: error: .*//p' <<<"$findings" | sort --unique)
  printf '%s\n' "${names:-$findings}" >&2
  die 1 "not formatted; scripts/format.sh does it"
}
