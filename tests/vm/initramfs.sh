#!/usr/bin/env bash
# Makes the root file system of a test boot.
#
# usage: initramfs.sh IMAGE VERSION "SCRIPT..." OUT [PROGRAM|MODULE.ko]...
set -euo pipefail
image="$1" version="$2" guests="$3" out="$4"
shift 4
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,sbin,proc,sys,dev,run,tmp,etc,root,lib/x86_64-linux-gnu,lib64}
modules="lib/modules/$version"
mkdir -p "$tree/$modules/extra"

cp /bin/busybox "$tree/bin/"
for applet in awk cat cp cut date dd dmesg env grep head kill ln ls mkdir mount poweroff rm sed seq sh sleep \
    sort stat tail timeout touch tr true uname wc; do
    ln -s busybox "$tree/bin/$applet"
done
program() { # program PATH: with the libraries it needs
    cp -L "$1" "$tree/bin/$(basename "$1")"
    # A static one needs none, and says so by failing.
    { ldd "$1" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
        mkdir -p "$tree/$(dirname "$library")"
        cp -Ln "$library" "$tree/$library"
    done
}
for name in bash ip nft ping iperf3 ethtool tcpdump kmod setpriv; do
    program "$(PATH="$PATH:/sbin:/usr/sbin" command -v "$name")"
done
# Loaded by name when a thread ends; no dependency shows it.
cp -L /lib/x86_64-linux-gnu/libgcc_s.so.1 "$tree/lib/x86_64-linux-gnu/"
for link in modprobe insmod rmmod lsmod modinfo; do
    ln -s kmod "$tree/bin/$link"
done
ln -s ../bin/kmod "$tree/sbin/modprobe"
mkdir "$tree/policies"
cp "$(dirname "$0")/../../examples"/*.kdl "$tree/policies/"
mkdir "$tree/guests"
number=0
for guest in $guests; do
    cp "$guest" "$tree/guests/$number-$(basename "$guest")"
    number=$((number + 1))
done

if [ ! -e "$image/$modules/modules.dep" ]; then
    depmod -b "$image" "$version"
fi
{
    for name in veth dummy tun ip6_tunnel xfrm_user nf_tables nft_fib_ipv6 nft_ct nft_masq tcp_diag \
        udp_diag; do
        modprobe -d "$image" -S "$version" -D "$name"
    done
    # Part of nf_tables itself in some kernels.
    modprobe -d "$image" -S "$version" -D nft_objref 2>/dev/null || true
} | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r file; do
    target="$tree/$modules/extra/$(basename "${file%.xz}")"
    case "$file" in
    *.xz) xz -dc "$file" >"$target" ;;
    *) cp "$file" "$target" ;;
    esac
done
for extra in "$@"; do
    case "$extra" in
    *.ko)
        cp "$extra" "$tree/$modules/extra/"
        strip -g "$tree/$modules/extra/$(basename "$extra")"
        ;;
    *)
        program "$extra"
        strip "$tree/bin/$(basename "$extra")"
        ;;
    esac
done
cp "$image/$modules"/modules.{order,builtin,builtin.modinfo} "$tree/$modules/"
depmod -b "$tree" "$version"

echo 'root:x:0:0:root:/root:/bin/bash' >"$tree/etc/passwd"
echo 'root:x:0:' >"$tree/etc/group"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$tree/etc/hosts"
cat >"$tree/init" <<'INIT'
#!/bin/bash
umask 022
export PATH=/bin:/sbin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /run/netns
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
modprobe tun
ip link set lo up
echo "note booted $(uname -r) after $(cut -d' ' -f1 /proc/uptime) s"
code=0
for guest in /guests/*; do
    bash "$guest" || code=$?
done
echo "RC=$code"
poweroff -f
INIT
chmod +x "$tree/init"
(cd "$tree" && find . | cpio -o -H newc --quiet | zstd -q -3 >"$out")
