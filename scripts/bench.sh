#!/usr/bin/env bash
# Builds optp and times it in pairs with another build of it: scripts/bench.sh --against PATH. --help says more.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up build
python=$(base_python) || die 2 "no python3 of version 3.10 or newer was found: apt-get install python3"
case " $* " in
  *" --help "* | *" -h "*) ;;
  *)
    configured || configure_build -DOPTP_BUILD_TESTS=OFF
    build_target optp
    ;;
esac
exec "$python" "$root/scripts/bench_pairs.py" --program "$root/build/$preset/optp" "$@"
