#!/bin/sh
# Installs what the Makefile's targets need, or prints in one line what is missing and what is left out.
#   prepare.sh venv           .venv with this project and what its tests and demo import
#   prepare.sh tools WHAT     the programs of `make WHAT` (demo, deb, test), or of a lab (lab, vagrant)
#   prepare.sh debian-tests   the unit tests under Debian's own Python packages
set -eu
cd "$(dirname "$0")/.."

say() { printf 'xenplugin: %s\n' "$*" >&2; }
root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt() {
    root || return 1
    # One update a day is enough, and an up-to-date list is not worth failing for.
    [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -mtime -1 2>/dev/null | head -n 1)" ] ||
        apt-get update -q >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1
}

# need PROGRAM PACKAGE CONSEQUENCE: install PACKAGE as root, else print what is done without PROGRAM.
need() {
    PATH="$PATH:/usr/sbin:/sbin:/usr/lib/ipsec" command -v "$1" >/dev/null && return 0
    apt "$2" && return 0
    say "no $1 (Debian package $2): $3"
}

# have FILE PACKAGE CONSEQUENCE: the same for a file that is not a program.
have() {
    [ -e "$1" ] || apt "$2" || say "no $1 (Debian package $2): $3"
}

vagrant_tools() {
    need vagrant vagrant "the Vagrantfile is not tested"
    have /usr/share/doc/vagrant-libvirt vagrant-libvirt "the Vagrantfile is not tested with libvirt"
    need grub-mkimage grub-common "no Vagrant box and no Debian guest can be made"
    have /usr/lib/grub/i386-pc/boot.img grub-pc-bin "no Vagrant box and no Debian guest can be made"
    need qemu-img qemu-utils "no Vagrant box and no Debian guest can be made"
}

case "${1:-}" in
venv)
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "Python 3.11 or newer is needed: install python3 (Debian 12 has it)"
        exit 1
    fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null && ! apt python3-venv; then
        say "python3 cannot make virtual environments: ask root for 'apt-get install python3-venv'"
        exit 1
    fi
    say "making .venv"
    python3 -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check -e '.[lab,dev]'
    touch .venv/ready
    ;;
tools)
    case "${2:-}" in
    deb | lab | test)
        have /usr/share/build-essential/list build-essential "no Debian package can be built"
        need dh debhelper "no Debian package can be built"
        need dh_python3 dh-python "no Debian package can be built"
        for module in click cryptography zstandard; do
            have "/usr/lib/python3/dist-packages/$module" "python3-$module" "no Debian package can be built"
        done
        ;;
    esac
    if [ "${2:-}" = deb ]; then exit 0; fi
    need ip iproute2 "tests and demo that need network namespaces are left out"
    need ssh openssh-client "what goes over ssh is left out"
    need sshd openssh-server "what goes over ssh is left out"
    need rsync rsync "rsync is left out of the comparison"
    need zstd zstd "zstd | ssh is left out of the comparison"
    need openssl openssl "the paper's way is left out of the comparison"
    need mkfs.ext4 e2fsprogs "no file system image can be built"
    case "${2:-}" in
    demo) need mmdebstrap mmdebstrap "the image is made of this machine's /usr instead of a fresh Debian" ;;
    test)
        need qemu-img qemu-utils "images in other formats than raw are not tested"
        need qemu-storage-daemon qemu-system-common "images in other formats than raw are not tested"
        need qemu-system-x86_64 qemu-system-x86 "what asks a guest's QEMU is not tested"
        have /usr/share/doc/libnbd0 libnbd0 "images in other formats than raw are not tested"
        need lintian lintian "the Debian package is not checked by lintian"
        need groff groff-base "the man pages are not checked by groff"
        need glusterfsd glusterfs-client "no cluster file system is tested"
        need mkfs.vfat dosfstools "no USB stick is tested"
        need mkfs.exfat exfatprogs "no USB stick is tested"
        need mount.exfat-fuse exfat-fuse "no USB stick is tested"
        vagrant_tools
        ;;
    vagrant)
        vagrant_tools
        need libvirtd libvirt-daemon-system "no lab by Vagrant can run"
        need virsh libvirt-clients "no lab by Vagrant can run"
        need dnsmasq dnsmasq-base "no lab by Vagrant can run"
        ;;
    lab)
        need qemu-system-x86_64 qemu-system-x86 "no lab of real Xen hosts can run (xenlab doctor)"
        need qemu-img qemu-utils "no lab of real Xen hosts can run (xenlab doctor)"
        need mmdebstrap mmdebstrap "no image of a Xen host can be built"
        need busybox busybox-static "no image of a Xen host can be built"
        need ping iputils-ping "no link of a lab can be measured"
        need tcpdump tcpdump "what crosses a lab of namespaces cannot be captured"
        need original-awk original-awk "the scripts for a FreeBSD router are not run by FreeBSD's awk"
        need charon strongswan-charon "labs of namespaces have no IPsec"
        need swanctl strongswan-swanctl "labs of namespaces have no IPsec"
        have /usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so libcharon-extra-plugins \
            "labs of namespaces have no IPsec"
        have /usr/lib/ipsec/plugins/libstrongswan-openssl.so libstrongswan-standard-plugins \
            "labs of namespaces have no IPsec"
        ;;
    esac
    ;;
debian-tests)
    packages="python3-click python3-cryptography python3-hypothesis python3-pytest python3-pyxs
        python3-rich python3-zstandard"
    # shellcheck disable=SC2086
    if ! /usr/bin/python3 -c 'import click, cryptography, hypothesis, pytest, pyxs, rich, zstandard' 2>/dev/null &&
        ! apt $packages; then
        say "Debian's own Python packages are not installed: their test run is left out ($packages)"
        exit 0
    fi
    options=
    if /usr/bin/python3 -c 'import xdist' 2>/dev/null || apt python3-pytest-xdist; then options="-n 2 --dist loadfile"; fi
    # xenplugin.image imports none of these packages (tests/project/test_layers.py), and test_layers and
    # test_wire_picture read sources only: under the same Python they would do the same again.
    if [ "$(.venv/bin/python -V 2>/dev/null)" = "$(/usr/bin/python3 -V)" ]; then
        options="$options --ignore=tests/xenplugin/image
            --ignore=tests/project/test_layers.py --ignore=tests/project/test_wire_picture.py"
    fi
    # The system's own Python, without anything of .venv.
    # shellcheck disable=SC2086
    env -u PYTHONPATH PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -p no:cacheprovider $options \
        tests/xenplugin tests/vectors tests/packaging tests/project -m "not slow and not lab"
    ;;
*)
    sed -n '2,5p' "$0" >&2
    exit 2
    ;;
esac
