#!/usr/bin/env bash
# Finds or installs what optp is built and tested with: Debian's packages, LibTorch, Python tools. The other scripts
# source it; called on its own it installs what the build needs. Whatever is there already is left alone. Installed
# Python packages go to folders below the user's cache, which all clones share. Everything is said on standard error.
set -euo pipefail
trap 'exit 130' INT  # pip catches Ctrl-C and then just fails

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
torch_version=2.13.0
# shellcheck disable=SC2034  # for the scripts that source this one
clang_format_version=21.1.8 clang_tidy_version=22.1.7
test_packages=("torch==$torch_version" transformers==4.57.6 tokenizers==0.22.2 safetensors numpy tensorboard==2.21.0)

say() { printf 'optp: %s\n' "$*" >&2; }
die() {
  local status=$1
  shift
  say "$*"
  exit "$status"
}

# --- The cache folder ---------------------------------------------------------------------------------------------

cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
cache=${cache:+$cache/optp}
python_venv=$cache/python  # torch, and what the tests need
tools_venv=$cache/tools    # clang-format, clang-tidy

cache_writable() { [ -n "$cache" ] && mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ]; }

# Compiling must not fail because ccache has no place to write.
if [ -z "${CCACHE_DIR:-}" ] && ! cache_writable; then
  export CCACHE_DISABLE=1
fi

# locked COMMAND...: runs it while no other set-up changes the cache folder; returns 1 where that cannot be written.
locked() {
  if ! cache_writable; then
    say "the cache folder '$cache' cannot be written: set XDG_CACHE_HOME to a folder that can"
    return 1
  fi
  (
    trap 'exit 130' INT
    flock --nonblock 9 || { say "waiting for another set-up that is writing to $cache"; flock 9; }
    "$@"
  ) 9>"$cache/lock"
}

# --- Debian's packages --------------------------------------------------------------------------------------------

have_header() {
  local folder folders
  IFS=: read -ra folders <<<"${CPLUS_INCLUDE_PATH:-}:/usr/include:/usr/local/include"
  for folder in "${folders[@]}"; do
    [ ! -e "$folder/$1" ] || return 0
  done
  return 1
}

# base_python: prints a Python that can make a venv in which torch can be installed.
base_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# as_root COMMAND...: runs it, or returns 126 where there is no way to.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
    sudo "$@"
  else
    return 126
  fi
}

# apt_install PACKAGES...: installs them, or returns 1.
apt_install() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get --quiet --assume-yes --no-install-recommends)
  say "installing with apt-get: $*"
  # Without the lists nothing is found; old lists name files that are gone.
  { apt-cache show "$@" >/dev/null 2>&1 && as_root "${apt[@]}" install "$@" >&2; } ||
    { as_root "${apt[@]}" update >&2 && as_root "${apt[@]}" install "$@" >&2; }
}

# ensure_packages build|tests: installs the missing Debian packages; needs find_torch first.
ensure_packages() {
  local missing=()
  command -v g++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  have_header CLI/CLI.hpp || missing+=(libcli11-dev)
  have_header nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
  have_header pcre2.h || missing+=(libpcre2-dev)
  if [ "$1" = tests ]; then
    have_header gtest/gtest.h || missing+=(libgtest-dev)
    have_header gmock/gmock.h || missing+=(libgmock-dev)
  fi
  if [ -z "$torch_dir" ] || [ "$1" = tests ]; then
    base_python >/dev/null || missing+=(python3-venv)
  fi
  if [ ${#missing[@]} != 0 ]; then
    command -v ccache >/dev/null || missing+=(ccache)
    command -v apt-get >/dev/null || die 2 "missing, and there is no apt-get to install it with: ${missing[*]}"
    as_root true || die 2 "some packages are missing; ask for, as root: apt-get update && apt-get install ${missing[*]}"
    apt_install "${missing[@]}" || die 1 "apt-get could not install ${missing[*]} (see above)"
  fi
  local cmake_version
  cmake_version=$(cmake --version | sed -n '1s/.* //p')
  [ "$(printf '%s\n' 3.22 "$cmake_version" | sort --version-sort | head -n 1)" = 3.22 ] ||
    die 2 "CMake $cmake_version found, 3.22 or newer needed: Debian 12 and Ubuntu 22.04 have it"
}

# ensure_iproute2: installs what some tests make hosts and cables with, where that is possible.
ensure_iproute2() {
  ! PATH=$PATH:/usr/sbin:/sbin command -v tc >/dev/null || return 0
  { command -v apt-get >/dev/null && as_root true && apt_install iproute2; } ||
    say "the package iproute2 is missing: the tests over several hosts will be skipped"
}

# --- Python packages ----------------------------------------------------------------------------------------------

# have_package PYTHON NAME [VERSION]: that Python has the whole package: installers write INSTALLER last.
have_package() {
  [ -x "$1" ] && "$1" -I - "${@:2}" <<'PYTHON' 2>/dev/null
import importlib.metadata, sys
package = importlib.metadata.distribution(sys.argv[1])
right = len(sys.argv) < 3 or package.version.split("+")[0] == sys.argv[2]
sys.exit(not (right and package.read_text("INSTALLER")))
PYTHON
}

# new_venv FOLDER: makes it, from nothing, or returns 1.
new_venv() {
  local python
  python=$(base_python) || { say "no python3 of version 3.10 or newer that can make a venv was found"; return 1; }
  "$python" -m venv --clear "$1" >&2 || { say "'$python -m venv $1' failed"; return 1; }
}

# ensure_tool NAME VERSION: makes $tools_venv/bin/NAME be of that version, or returns 1.
ensure_tool() {
  have_package "$tools_venv/bin/python" "$@" || locked install_tool "$@" || { say "$1 $2 could not be installed"; return 1; }
}
install_tool() {
  local python=$tools_venv/bin/python
  say "installing $1 $2 into $tools_venv"
  "$python" -I -m pip --version >/dev/null 2>&1 || new_venv "$tools_venv" || return 1
  "$python" -m pip install --quiet "$1==$2" >&2
}

# --- LibTorch -----------------------------------------------------------------------------------------------------

# torch_of PYTHON: prints the CMake folder of that Python's torch if it is a whole CPU build of the right version.
torch_of() {
  (cd / && "$1" - "${torch_version%.*}." <<'PYTHON' 2>/dev/null)
import importlib.metadata, importlib.util, pathlib, runpy, sys
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
about = runpy.run_path(str(folder / "version.py"))
cpu_build = about["cuda"] is None and about.get("hip") is None and about.get("xpu") is None
whole = importlib.metadata.distribution("torch").read_text("INSTALLER")
cmake_folder = folder / "share/cmake/Torch"
if not (about["__version__"].startswith(sys.argv[1]) and cpu_build and whole and cmake_folder.is_dir()):
    sys.exit(1)
print(cmake_folder)
PYTHON
}

# find_torch: sets torch_dir to LibTorch's CMake folder; empty if there is none yet.
find_torch() {
  local prefix prefixes
  torch_dir=
  if [ -n "${Torch_DIR:-}" ]; then
    [ -e "$Torch_DIR/TorchConfig.cmake" ] ||
      die 2 "Torch_DIR is '$Torch_DIR', which holds no TorchConfig.cmake: name LibTorch's folder share/cmake/Torch"
    torch_dir=$(cd "$Torch_DIR" && pwd)
    return
  fi
  IFS=':;' read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    if [ -e "$prefix/share/cmake/Torch/TorchConfig.cmake" ]; then
      torch_dir=$(cd "$prefix/share/cmake/Torch" && pwd)
      return
    fi
  done
  torch_dir=$(torch_of python3 || torch_of "$python_venv/bin/python") || torch_dir=
}

# ensure_cached_torch: makes $python_venv hold a CPU build of torch, or returns 1.
ensure_cached_torch() {
  torch_of "$python_venv/bin/python" >/dev/null || locked install_torch
}
install_torch() {
  local python=$python_venv/bin/python
  torch_of "$python" >/dev/null && return 0  # another set-up was quicker
  say "installing LibTorch $torch_version (CPU, about 200 MB) into $python_venv, once for all clones"
  new_venv "$python_venv" || return 1
  # Only CPU builds carry the label +cpu. Where pip's index has none, uv knows an index that has.
  if ! "$python" -m pip install "torch==$torch_version+cpu" >&2; then
    say "pip found no CPU build of torch $torch_version: trying with uv"
    "$python" -m pip install --quiet uv >&2 &&
      "$python" -m uv pip install --python "$python" --torch-backend cpu "torch==$torch_version" >&2
  fi
  torch_of "$python" >/dev/null
}

# ensure_test_packages: makes $python_venv hold what the tests want of Python, or returns 1.
ensure_test_packages() {
  ensure_cached_torch && { have_test_packages || locked install_test_packages; }
}
have_test_packages() {
  local package
  for package in "${test_packages[@]}"; do
    # shellcheck disable=SC2086  # two words where a version is asked for
    have_package "$python_venv/bin/python" ${package/==/ } || return 1
  done
}
install_test_packages() {
  say "installing for the tests into $python_venv: ${test_packages[*]}"
  "$python_venv/bin/python" -m pip install --quiet "${test_packages[@]}" >&2
}

# --- All of it ----------------------------------------------------------------------------------------------------

# set_up build|tests: Debian's packages and LibTorch; sets torch_dir.
set_up() {
  find_torch
  ensure_packages "$1"
  [ "$1" = build ] || ensure_iproute2
  if [ -z "$torch_dir" ]; then
    ensure_cached_torch || die 1 "LibTorch $torch_version could not be installed (see above): set Torch_DIR to the" \
      "folder share/cmake/Torch of a LibTorch $torch_version, or install the CPU build of torch for python3"
    find_torch
  fi
}

# The preset that is built and tested.
preset=${OPTP_PRESET:-release}

# configured: build/PRESET is there and fits what set_up found.
configured() {
  local ninja_file=$root/build/$preset/build.ninja
  [ -e "$ninja_file" ] && [ ! "$root/CMakePresets.json" -nt "$ninja_file" ] && same_torch
}
same_torch() { grep -Fxqs "Torch_DIR:PATH=$torch_dir" "$root/build/$preset/CMakeCache.txt"; }

# configure_build CMAKE-OPTIONS...: makes or changes build/PRESET.
configure_build() {
  same_torch || rm -f "$root/build/$preset/CMakeCache.txt"  # it also remembers the old LibTorch's libraries
  (cd "$root" && cmake --preset "$preset" "-DTorch_DIR:PATH=$torch_dir" "$@") >&2
}

# build_target TARGET: with a job a core, or a GiB of memory, which a source that includes LibTorch takes.
build_target() {
  local jobs memory
  jobs=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  [ "$memory" -ge "$jobs" ] || jobs=$((memory > 0 ? memory : 1))
  say "building (the first time takes some minutes)"
  cmake --build "$root/build/$preset" --parallel "$jobs" --target "$1" >&2
}

# list_sources: the C++ files of the project, each ended by a NUL.
list_sources() { (cd "$root" && find parallel modules src tests \( -name '*.h' -o -name '*.cpp' \) -print0); }

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set_up build
  say "ready to build; LibTorch is in $torch_dir"
fi
