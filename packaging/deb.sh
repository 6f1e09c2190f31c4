#!/bin/sh
# Builds the Debian package xenplugin_VERSION_all.deb into the folder OUT (default: dist), without root and network.
#   deb.sh [OUT]
# dpkg-buildpackage works on a copy that holds only the files of the package, so nothing else of a checkout (virtual
# environments, byte code, permissions, times) gets into it, and two builds are identical.
set -eu
umask 022
cd "$(dirname "$0")/.."
out=${1:-dist}

say() { printf 'xenplugin: %s\n' "$*" >&2; }

lacks=dpkg-dev
if command -v dpkg-checkbuilddeps >/dev/null; then
    lacks=$(LC_ALL=C.UTF-8 dpkg-checkbuilddeps packaging/debian/control 2>&1 | sed 's/.*: Unmet build dependencies: //')
fi
if [ -n "$lacks" ]; then
    say "error: what builds the Debian package is not installed: $lacks"
    say "hint: apt install build-essential debhelper dh-python python3-click python3-cryptography python3-zstandard"
    exit 10
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
copy=$work/xenplugin
mkdir -p "$copy" "$out"
tar -cf - --exclude=__pycache__ README.md docs packaging xenplugin |
    tar -C "$copy" --no-same-owner --no-same-permissions -xmf -
mv "$copy/packaging/debian" "$copy/debian"

# The programs of a virtual environment, first in PATH, would not find Debian's Python packages.
if ! (cd "$copy" && env -u PYTHONPATH -u PYTHONHOME PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    dpkg-buildpackage --build=binary --no-sign) >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    say "error: the Debian package could not be built"
    exit 13
fi
for deb in "$work"/*.deb; do
    # By a rename, so that a reader finds either the old package or the new one.
    cp "$deb" "$out/.${deb##*/}"
    mv "$out/.${deb##*/}" "$out/${deb##*/}"
    echo "$out/${deb##*/}"
done
