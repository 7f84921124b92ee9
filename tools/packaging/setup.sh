#!/bin/sh
# Makes build/tools, the environment that `make dist` builds in, from the pins of tools.txt: `setup.sh` what the build needs,
# `setup.sh test` what `make test-dist` needs too. Debian packages that are missing are installed by apt-get (as root), or named.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=$root/build/tools
extra=${1:-}

say() { echo "dist: $*"; }

command -v dpkg-query >/dev/null 2>&1 || {
    say "the .deb can only be built on Debian 12, Ubuntu 24.04 or alike; elsewhere: pip wheel clients/python ." >&2
    exit 1
}

# The package needs the Python it was built for, so that must be one of Debian's own.
python=
for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if /usr/bin/$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=/usr/bin/$name
        break
    fi
done
version=${python#/usr/bin/}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing() {
    for package in ${version:-python3} ${version:-python3}-venv ${version:-python3}-dev gcc libc6-dev debhelper dpkg-dev lintian; do
        installed "$package" || echo "$package"
    done
    [ "$extra" != test ] || installed debootstrap || echo debootstrap
    [ "$extra" != test ] || installed man-db || echo man-db
}

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ] && [ "$(id -u)" = 0 ]; then
    say "installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qq -y --no-install-recommends $packages >/dev/null
    [ -n "$python" ] || exec sh "$0" "$@"
    packages=$(missing | tr '\n' ' ')
fi
if [ -n "$packages" ]; then
    say "missing Debian packages: $packages" >&2
    say "install them, for example: sudo apt-get install $packages" >&2
    exit 1
fi

[ -n "$python" ] || {
    say "no Python of the system's own is 3.11 or later: use Debian 12, Ubuntu 24.04 or alike" >&2
    exit 1
}

stamp=$(cksum <"$here/tools.txt")-$root
if [ "$(cat "$tools/.made" 2>/dev/null)" != "$stamp" ] || ! "$tools/bin/python" -c "" 2>/dev/null; then
    say "making build/tools with $("$python" --version)"
    "$python" -m venv --clear "$tools"
    # Twice quiet: errors only.
    "$tools/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/tools.txt"
    echo "$stamp" >"$tools/.made"
fi
