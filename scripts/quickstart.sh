#!/usr/bin/env bash
# Installs what is missing, builds optp, and verifies OPT-125M on two processes: on random ids, then on a real text.
# With arguments it runs `optp ARGUMENTS...` instead. Reports are written to the current folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up build
configured || configure_build -DOPTP_BUILD_TESTS=OFF
build_target optp
optp=$root/build/$preset/optp

if [ $# != 0 ]; then
  exec "$optp" "$@"
fi
say "verifying OPT-125M on 2 processes, all checks"
"$optp" verify
say "verifying OPT-125M on 2 processes once more, on the text of README.md"
"$optp" verify --checks forward,backward --text "$root/README.md" --report opt125m_text_report.txt
