#!/bin/sh
# The first process of the guest. It talks to the host on three serial ports:
#   ttyS0  the kernel's console
#   ttyS1  what the job's script prints
#   ttyS2  how far the guest is, one word and its argument per line
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=dumb LANG=C.UTF-8 NO_COLOR=1 TMPDIR=/tmp

/sbin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr

stty -F /dev/ttyS1 raw -echo
stty -F /dev/ttyS2 raw -echo
say() { echo "$*" >/dev/ttyS2; }
say up "$(uname -r)"

modules=/lib/modules/$(uname -r)
while read -r module; do
	insmod "$modules/$module" >/tmp/insmod 2>&1 || say module "$module: $(tr "\n" " " </tmp/insmod)"
done <"$modules/load"
rm -f /tmp/insmod

hostname guest
ip link set lo up

say run
cd /root || exit
. /job.env
/bin/sh /job.sh </dev/null >/dev/ttyS1 2>&1
status=$?
cd /

# Whatever the script left behind must neither print nor write any more.
kill -KILL -1 2>/dev/null
stty -F /dev/ttyS1 raw # waits until all of it is written
say exit "$status"
if [ -n "$(ls -A /out)" ]; then
	say pack
	if ! { [ -b /dev/vda ] && tar -c -C /out . | dd of=/dev/vda bs=1M iflag=fullblock conv=fsync 2>/tmp/dd; }; then
		say unpacked "/out: $(tr "\n" " " </tmp/dd)"
		poweroff -f
	fi
fi
say end
poweroff -f
