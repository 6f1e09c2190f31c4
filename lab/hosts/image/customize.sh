#!/bin/sh
# Runs inside the image's tree (chroot) when its packages and our own files are there. No network, no mounts.
set -eu

# The plugin's package, installed as any user would.
dpkg -i /xenplugin.deb
rm /xenplugin.deb

# Identities must not be the same on all machines.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /etc/iscsi/initiatorname.iscsi
: >/etc/machine-id
echo xenlab >/etc/hostname
: >/etc/resolv.conf
: >/etc/fstab

# Each unit that a host of the lab does not need costs seconds at every boot.
systemctl -q mask \
    e2scrub_reap.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-tmpfiles-clean.timer \
    apt-daily.timer apt-daily-upgrade.timer logrotate.timer systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-pstore.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    systemd-random-seed.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-quotacheck.service systemd-machine-id-commit.service systemd-firstboot.service systemd-repart.service \
    systemd-udev-load-credentials.service systemd-hwdb-update.service systemd-networkd-persistent-storage.service \
    systemd-logind.service systemd-user-sessions.service systemd-hostnamed.service systemd-rfkill.socket \
    systemd-rfkill.service systemd-journal-flush.service systemd-remount-fs.service systemd-fsck-root.service \
    systemd-fsckd.socket systemd-ask-password-console.path systemd-ask-password-wall.path systemd-initctl.socket \
    systemd-network-generator.service systemd-networkd-wait-online.service systemd-sysext.service \
    getty.target serial-getty@.service getty@.service console-getty.service \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount kmod-static-nodes.service \
    lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket blk-availability.service \
    xendomains.service rsync.service sudo.service ipsec.service strongswan-starter.service \
    remote-fs.target hwclock.service \
    nfs-server.service nfs-client.target nfs-blkmap.service nfsdcld.service rpcbind.service rpcbind.socket \
    rpc-statd.service rpc-statd-notify.service rpc-gssd.service run-rpc_pipefs.mount proc-fs-nfsd.mount \
    iscsid.socket iscsid.service open-iscsi.service
systemctl -q enable systemd-networkd.service ssh.service xenlab-router.service
systemctl -q disable systemd-networkd-wait-online.service systemd-timesyncd.service 2>/dev/null || true
systemctl -q set-default multi-user.target
rm -rf /var/log/*.log /var/log/apt /var/cache/apt/* /var/lib/apt/lists/* /var/cache/debconf/*-old
mkdir -p /var/log/xen/console
# Tells systemd that the files made from /usr (catalogues, linker cache, users) are up to date.
touch -r /usr /etc/.updated /var/.updated
