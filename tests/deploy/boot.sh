#!/bin/sh
# Boots systemd on a copy-on-write view of this machine's root, of which nothing stays. It is run in new mount, PID, cgroup, UTS and IPC
# namespaces: boot.sh DIRECTORY REPOSITORY BASE SITE UNITS. DIRECTORY is empty; BASE is Python's prefix, SITE where its packages are.
set -eu
directory=$1 repository=$2 base=$3 site=$4 units=$5
root=$directory/root

mount --make-rprivate /
mount -t tmpfs -o mode=755 mcastd "$directory"
mkdir "$root" "$directory/upper" "$directory/work"
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"

# Where everybody can read it, as an installation is.
mkdir -p "$root/opt/mcastd" "$root/opt/base" "$root/opt/site"
mount --bind "$repository" "$root/opt/mcastd"
mount --bind "$base" "$root/opt/base"
mount --bind "$site" "$root/opt/site"

# Nothing of this machine is started.
find "$root/etc/systemd/system" -mindepth 1 -delete
for unit in dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-binfmt.service systemd-journal-flush.service \
    systemd-journald-audit.socket systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket systemd-logind.service \
    systemd-modules-load.service systemd-networkd.service systemd-pstore.service systemd-random-seed.service systemd-remount-fs.service \
    systemd-resolved.service systemd-sysctl.service systemd-timesyncd.service systemd-udev-trigger.service systemd-udevd.service \
    systemd-update-utmp.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service; do
    ln -s /dev/null "$root/etc/systemd/system/$unit"
done
cp -r "$units/." "$root/etc/systemd/system/"
rm -rf "$root/etc/mcastd" "$root/var/lib/mcastd"
install -D -m 644 "$repository/deploy/systemd/mcastd.sysusers" "$root/usr/lib/sysusers.d/mcastd.conf"
install -D -m 644 "$repository/deploy/systemd/mcastd.tmpfiles" "$root/usr/lib/tmpfiles.d/mcastd.conf"
chroot "$root" systemd-sysusers mcastd.conf
chroot "$root" systemd-tmpfiles --create mcastd.conf
for program in mcastd:mcastd.cli mcastctl:mcastd.cli.ctl.main; do
    printf '#!/bin/sh\nexec /opt/base/bin/python3 -P -s -m %s "$@"\n' "${program#*:}" >"$root/usr/bin/${program%%:*}"
    chmod 755 "$root/usr/bin/${program%%:*}"
done
exec env -i container=mcastd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --system --unit=trial.target --log-target=null --show-status=no
