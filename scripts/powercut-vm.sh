#!/bin/sh
# Makes the virtual machine of `make powercut`: in the directory that is named,
# vmlinuz and initramfs. The kernel and busybox are Debian's, downloaded once and
# unpacked there: nothing of them is installed. QEMU is, when it is missing and
# may be; otherwise the command to type is printed.
#
#   scripts/powercut-vm.sh DIRECTORY PROGRAM...   # the programs go to the guest's /bin
#
# Exit status: 0 it is there, 1 something failed, 2 a person has to act.
set -eu

mkdir -p "$1"
vm=$(cd "$1" && pwd)
shift
warn() { printf '%s\n' "$*" >&2; }

if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get >/dev/null 2>&1; then
    warn "make powercut needs Debian or one of its kin on x86-64: the machine's kernel is taken from its packages."
    exit 2
fi

# QEMU, and mkfs.ext4 for the machine's disk.
if ! command -v qemu-system-x86_64 >/dev/null 2>&1 || ! PATH=$PATH:/usr/sbin:/sbin command -v mkfs.ext4 >/dev/null 2>&1; then
    install="apt-get install -y --no-install-recommends qemu-system-x86 e2fsprogs"
    if [ "$(id -u)" -ne 0 ]; then
        warn "QEMU or mkfs.ext4 is missing. Type:"
        warn "  sudo $install"
        exit 2
    fi
    warn "No QEMU found: installing Debian's with apt-get, for the machine whose power is cut."
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # words of a command
    if ! { apt-get update -q && $install -q; } </dev/null >/dev/null; then
        warn "apt-get failed (see above). When what it complains about is mended, type:"
        warn "  sudo $install"
        exit 1
    fi
fi

# kernel_package: the package that the newest kernel is in.
kernel_package() {
    LC_ALL=C apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1 | grep .
}

# Kernel and busybox, unpacked into $vm/root.
if [ ! -e "$vm/root/complete" ]; then
    if ! package=$(kernel_package); then
        warn "apt knows no package linux-image-cloud-amd64. Type:"
        warn "  sudo apt-get update"
        exit 2
    fi
    warn "Downloading $package and busybox-static into $vm (not installed)."
    rm -rf "$vm/root" "$vm/packages"
    mkdir -p "$vm/root" "$vm/packages"
    if ! (cd "$vm/packages" && apt-get download -q -o APT::Sandbox::User=root "$package" busybox-static >/dev/null); then
        warn "apt-get download failed. If it found no such version, type:"
        warn "  sudo apt-get update"
        exit 1
    fi
    for deb in "$vm"/packages/*.deb; do
        dpkg-deb -x "$deb" "$vm/root"
    done
    rm -rf "$vm/packages"
    touch "$vm/root/complete"
fi
cp "$vm"/root/boot/vmlinuz-* "$vm/vmlinuz"
busybox=$(find "$vm/root" -type f -path '*/bin/busybox')

# The initramfs: busybox, the programs, the modules, and what to do.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$tree/bin" "$tree/modules" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/disk" "$tree/tmp"
cp "$busybox" "$@" "$tree/bin"

# Modules that the disk and the network need. One that is missing is part of the
# kernel.
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk \
    failover net_failover virtio_net crc16 mbcache jbd2 ext4; do
    file=$(find "$vm/root" -name "$module.ko*" | head -n 1)
    case $file in
    *.ko) cp "$file" "$tree/modules" ;;
    *.ko.xz) "$busybox" unxz -c "$file" >"$tree/modules/$module.ko" ;;
    esac
done

# The kernel hands powercut=… of its command line to init as an environment
# variable. Whatever ends, the machine ends.
cat >"$tree/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for pass in 1 2 3 4; do # they need each other, in an order that differs between kernels
    for module in /modules/*.ko; do insmod "$module" 2>/dev/null && rm "$module"; done
done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
mount -t ext4 /dev/vda /disk
echo "guest: $powercut, kernel $(uname -r), disk cache: $(cat /sys/block/vda/queue/write_cache)"
case $powercut in
serve)
    DATA_DIR=/disk/data LISTEN_ADDR=:8080 WEBHOOK_TOKENS=a-token-for-powercut LOG_FORMAT=json LOG_LEVEL=warn HOME=/tmp \
        serversync serve --roles=ingest
    ;;
*) powercut -guest "$powercut" ;;
esac
echo "guest: ended with status $?"
poweroff -f
INIT
chmod 755 "$tree/init"
# Not compressed: an emulated processor is slow to unpack.
(cd "$tree" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$vm/initramfs"
