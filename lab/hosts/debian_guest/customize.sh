#!/bin/sh
# Ends the installation of the Debian guest; run inside its tree. What waits or runs by a timer costs seconds at every
# boot under software emulation.
set -eu
systemctl -q mask \
    e2scrub_reap.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-tmpfiles-clean.timer \
    systemd-pstore.service systemd-binfmt.service systemd-random-seed.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-machine-id-commit.service systemd-firstboot.service \
    systemd-hwdb-update.service systemd-journal-flush.service systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-logind.service systemd-user-sessions.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-timesyncd.service \
    getty.target serial-getty@.service getty@.service console-getty.service remote-fs.target \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount
systemctl -q enable ledger.service
systemctl -q set-default multi-user.target
: >/etc/machine-id
touch -r /usr /etc/.updated /var/.updated
