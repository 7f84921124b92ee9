#!/bin/sh
# Makes .venv and installs the distributions into it, editable: `setup.sh` what the daemon and the demo need, `setup.sh test` what
# the test suite needs too. System packages that are missing are installed by apt-get (as root), or named.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv
extra=${1:-}

say() { echo "setup: $*"; }

# suitable PYTHON: new enough, able to make a virtual environment, with the headers to compile an extension.
suitable() {
    "$1" - >/dev/null 2>&1 <<'EOF'
import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 11) or not os.path.exists(headers))
EOF
}

find_python() {
    for python in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null 2>&1 && suitable "$python"; then
            command -v "$python"
            return
        fi
    done
}

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1; }
compiles() { has cc && echo '#include <linux/mroute6.h>' | cc -E -x c - >/dev/null 2>&1; }

# python_packages: the system's own python3 where that is new enough, else the newest other one it offers.
python_packages() {
    for version in 3 3.14 3.13 3.12 3.11; do
        offered=$(apt-cache policy "python$version" 2>/dev/null | sed -n 's/^ *Candidate: //p')
        case $offered in
            3.[0-9].* | 3.10.* | "" | "(none)") ;;
            *)
                echo "python$version python$version-venv python$version-dev"
                return
                ;;
        esac
    done
    echo "python3.11 python3.11-venv python3.11-dev"
}

missing() {
    [ -n "$(find_python)" ] || python_packages
    compiles || echo "gcc libc6-dev"
    has ip || echo iproute2
    has unshare || echo util-linux
    [ "$extra" != test ] || has capsh || echo libcap2-bin
    [ "$extra" != test ] || has strace || echo strace
    [ "$extra" != test ] || has tmux || echo tmux
    # For systemd-analyze and for systemd itself, which the tests boot; it does not become the init of this machine by that.
    [ "$extra" != test ] || has systemd-analyze || echo systemd
}

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ] && has apt-get && [ "$(id -u)" = 0 ]; then
    say "installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    packages=$(missing | tr '\n' ' ') # the names are known for sure only now
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qq -y --no-install-recommends $packages >/dev/null
    packages=$(missing | tr '\n' ' ')
fi
if [ -n "$packages" ]; then
    say "missing system packages (names of Debian and Ubuntu): $packages" >&2
    say "install them, for example: sudo apt-get install $packages" >&2
    exit 1
fi

# prometheus_from_package: the programs out of Debian's package, without its service, which installing it would enable.
prometheus_from_package() (
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    chmod 755 "$unpacked"
    cd "$unpacked"
    apt-get download -qq prometheus 2>/dev/null || { [ "$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq prometheus; }
    dpkg-deb -x prometheus_*.deb .
    cp usr/bin/prometheus usr/bin/promtool "$venv/bin/"
)

# node_suits: new enough for the linters of clients/node; without it their tests are skipped, in CI they fail.
node_suits() {
    has npm && node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
}

python=$(find_python)
# A virtual environment holds absolute paths and one Python: a copied tree, or a Python that is gone, needs a new one.
if [ "$(cat "$venv/.root" 2>/dev/null)" != "$root" ] || ! "$venv/bin/python" -c "" 2>/dev/null; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
    echo "$root" >"$venv/.root"
fi
if [ "$extra" = test ] && ! { has promtool && has prometheus; } && ! [ -x "$venv/bin/promtool" ]; then
    say "taking prometheus and promtool from Debian's package into .venv"
    prometheus_from_package || {
        say "could not: put the programs prometheus and promtool (2.42 or later) where PATH finds them" >&2
        exit 1
    }
fi
say "building and installing into .venv (half a minute or so)"
# Python prefers an extension named for its own version, as running _native_build.py makes it, to the one installed now.
rm -f "$root"/mcastd/kernel/_native.cpython-*.so
# Twice quiet: errors only.
"$venv/bin/python" -m pip install -qq --disable-pip-version-check -e "$root/clients/python" \
    -e "$root/clients/examples/controller" -e "$root${extra:+[$extra]}"
node=$root/clients/node
if [ "$extra" = test ] && node_suits && ! [ "$node/node_modules/.package-lock.json" -nt "$node/package-lock.json" ]; then
    say "installing what clients/node is built and tested with"
    (cd "$node" && npm ci --loglevel=error)
fi
