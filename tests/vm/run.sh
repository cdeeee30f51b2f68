#!/usr/bin/env bash
# Boots Debian's kernels under emulation: kmod-mtun is built for each of them and tried there, by hand
# and by our daemons, and the packet path of the daemon meets the kernel's own Mobile IPv6.
#
#   tests/vm/run.sh              all of it
#   tests/vm/run.sh 6.1          the module on one kernel; 6.12 is the other
#   tests/vm/run.sh poisoned     the same on 6.1, whose allocator watches every octet: what is read
#                                after it was freed, or written beside it, is seen; no figures
#   tests/vm/run.sh daemons      our daemons on the module, and the corpus of packets through it, on 6.1
#   tests/vm/run.sh daemons-6.12 the same on the other kernel
#   tests/vm/run.sh straight     route optimization with the kernel as the other end
#
# Needs Debian 12 (amd64) and root for apt; what is missing is installed, kernels are downloaded
# into the target directory and never installed. No KVM: emulation only, so that the outcome does
# not depend on the host. Each boot has a limit, VM_LIMIT seconds (default 600).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
work="${MTUN_VM_DIR:-${CARGO_TARGET_DIR:-$root/target}/vm}"
limit="${VM_LIMIT:-600}"
target="${CARGO_TARGET_DIR:-$root/target}"
[ $# -gt 0 ] || set -- straight 6.1 daemons 6.12 daemons-6.12 poisoned
mkdir -p "$work"

say() { printf '== %s\n' "$*"; }

packages=(qemu-system-x86 busybox-static cpio zstd kmod xz-utils iproute2 iperf3 iputils-ping
    ethtool tcpdump nftables sparse dwarves linux-headers-amd64 gcc-12 make libc6-dev python3)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The exact version that a meta-package stands for at present.
version_of() { # version_of 6.1|6.12
    local meta=linux-image-amd64
    [ "$1" = 6.1 ] || meta="linux-image-$1-amd64"
    apt-cache depends "$meta" | sed -n 's/.*Depends: linux-image-//p' | head -n 1
}

fetch() { # fetch PACKAGE DIRECTORY: unpacks it there, once
    [ -e "$2/.$1" ] && return
    say "fetching $1"
    mkdir -p "$2" "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$1" 2>/dev/null)
    dpkg-deb -x "$work/deb/$1"_*.deb "$2"
    rm -f "$work/deb/$1"_*.deb
    touch "$2/.$1"
}

# The headers, outside of /usr/src: those of 6.12 would pull an image in if installed.
headers() { # headers VERSION -> directory
    local version="$1" tree="$work/headers-$1" base="${1%-amd64}"
    fetch "linux-headers-$version" "$tree" >&2
    fetch "linux-headers-$base-common" "$tree" >&2
    local kbuild="linux-kbuild-$base"
    apt-cache show "$kbuild" >/dev/null 2>&1 || kbuild="linux-kbuild-$2"
    fetch "$kbuild" "$tree" >&2
    local makefile="$tree/usr/src/linux-headers-$version/Makefile"
    sed -i "s#include /usr/src/#include $tree/usr/src/#" "$makefile"
    echo "$tree/usr/src/linux-headers-$version"
}

# Warnings count as failures; sparse reads every file.
build() { # build VERSION HEADERS -> mtun.ko
    local tree="$work/build-$1"
    rm -rf "$tree"
    mkdir -p "$tree"
    cp -r "$root"/kmod-mtun/{*.c,*.h,Kbuild,Makefile,uapi} "$tree"
    if ! make -C "$2" M="$tree" W=1 C=2 modules >"$tree/log" 2>&1; then
        cat "$tree/log" >&2
        return 1
    fi
    if grep -E 'warning:|error:' "$tree/log" >&2; then
        echo "the build has warnings" >&2
        return 1
    fi
    echo "$tree/mtun.ko"
}

image_of() { # image_of VERSION -> directory with the kernel, unpacked
    local image="$work/image-$1"
    fetch "linux-image-$1" "$image" >&2
    [ -e "$image/vmlinux" ] ||
        python3 "$here/vmlinux.py" "$image/boot/vmlinuz-$1" "$image/vmlinux"
    echo "$image"
}

module() { # module SERIES -> mtun.ko, with the tool for it beside
    if [ ! -e "$work/pure" ]; then
        say "the pure parts, in user space under sanitizers" >&2
        make -s -C "$root/kmod-mtun/selftest" OUT="$work" check >&2 || return 1
        touch "$work/pure"
    fi
    make -s -C "$root/kmod-mtun/selftest" OUT="$work" "$work/mtunctl" >&2 || return 1
    build "$version" "$(headers "$version" "$1")"
}

module_boot() { # module_boot SERIES: what the module needs to be tried on this kernel
    local built
    built="$(module "$1")"
    "$here/initramfs.sh" "$image" "$version" "$here/guest.sh" "$initramfs" "$built" "$work/mtunctl"
}

daemons_boot() { # daemons_boot SERIES: the same for our daemons on it, and for the corpus
    local built parity
    built="$(module "$1")"
    (cd "$root" && cargo build -q --locked --bins)
    parity="$(cd "$root" && cargo test --locked -p mtun-dataplane --all-features --test kmod --no-run \
        --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')"
    cp "$parity" "$work/kmod-parity"
    "$here/initramfs.sh" "$image" "$version" "$here/daemons.sh" "$initramfs" "$built" \
        "$work/mtunctl" "$target/debug/mtun" "$target/debug/mtund" "$work/kmod-parity"
}

straight_boot() { # what the two ends of an optimized route need
    (cd "$root" && cargo build -q --locked --example straight)
    "$here/initramfs.sh" "$image" "$version" "$here/straight.sh" "$initramfs" \
        "$target/debug/examples/straight"
}

rm -f "$work/pure"
failures=0
for stage in "$@"; do
    series="$stage"
    # Of 6.12's allocator, one object in so many milliseconds stands where every wrong access is seen.
    watch=kfence.sample_interval=50
    case "$stage" in
    straight | daemons) series=6.1 ;;
    daemons-*) series="${stage#daemons-}" ;;
    poisoned) series=6.1 watch=slub_debug=FZP ;;
    esac
    version="$(version_of "$series")"
    [ -n "$version" ] || { echo "no kernel $series in the package sources" >&2; exit 1; }
    began=$(date +%s)
    say "$stage: kernel $version"
    image="$(image_of "$version")"
    initramfs="$work/initramfs-$stage.zst"
    case "$stage" in
    straight) straight_boot ;;
    daemons*) daemons_boot "$series" ;;
    *) module_boot "$series" ;;
    esac
    built=$(date +%s)

    console="$work/console-$stage.log"
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 \
        -M q35 -accel tcg,thread=multi,tb-size=512 -cpu max,-la57 -smp 2 -m 1536 \
        -display none -serial stdio -monitor none -no-reboot -nic none -vga none \
        -kernel "$image/vmlinux" -initrd "$initramfs" \
        -append "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off audit=0 tsc=reliable $watch" \
        </dev/null >"$console" 2>&1 || true
    grep -aE '^(ok|not ok|goal|note) ' "$console" || true
    verdict=passed
    # What the guest says last, and nothing bad from the kernel. Its exit code says nothing.
    grep -aq '^RC=0' "$console" || verdict=failed
    if grep -aE 'BUG|WARNING|Oops|Call Trace|unregister_netdevice: waiting' "$console" >&2; then
        verdict=failed
    fi
    if [ "$verdict" = failed ]; then
        failures=$((failures + 1))
        tail -n 60 "$console" >&2
    fi
    say "$stage, kernel $version $verdict: build $((built - began)) s," \
        "run $(($(date +%s) - built)) s, $(grep -ac '^ok ' "$console") ok," \
        "$(grep -ac '^not ok ' "$console") not ok"
done
[ "$failures" = 0 ]
