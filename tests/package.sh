#!/bin/bash
# The Debian package in a clean Debian root: install, start, upgrade, remove, purge.
#
#   tests/package.sh PROGRAMS
#
# PROGRAMS is a directory with mtund and mtun. Needs root, debootstrap and a Debian mirror
# (MTUN_MIRROR, http://deb.debian.org/debian if not set). The root is left behind by nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="$(cd "$1" && pwd)"
mirror="${MTUN_MIRROR:-http://deb.debian.org/debian}"

place="$(mktemp -d)"
namespace="mtun-package-$$"
root="$place/root"
daemon=""
end() {
    [ -z "$daemon" ] || stop || true
    ip netns del "$namespace" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$place"
}
trap end EXIT
# What unshare started; by itself it ends with that only.
stop() {
    pkill -TERM -P "$daemon" || return
    wait "$daemon"
}
fail() {
    echo "package: $*" >&2
    exit 1
}
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }

packages="$(MTUN_PROGRAMS="$programs" bash packaging/deb.sh "$place")"
package="${packages%%$'\n'*}"
[ "$(stat -c %s "$package")" -le $((24 << 20)) ] || fail "the package has more than 24 MiB"

debootstrap --variant=minbase --include=nftables,adduser bookworm "$root" "$mirror" \
    >"$place/debootstrap.log" 2>&1 || { tail "$place/debootstrap.log"; fail "no clean root"; }
# Everything but what dpkg keeps of its own doings, and its copies of the files of users.
everything() {
    (cd "$root" && find etc usr var -xdev -not -path 'var/log/*' -not -path 'var/cache/*' \
        -not -path 'var/lib/dpkg/*' -not -path 'usr/share/info/*' |
        grep -v 'etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' | sort)
}
before="$(everything)"
users="$(cat "$root/etc/passwd" "$root/etc/group")"
cp "$package" "$root/tmp/mtun.deb"

inside dpkg --install /tmp/mtun.deb >"$place/install.log" 2>&1 || { cat "$place/install.log"; fail "install"; }
inside getent passwd mtun | grep -q '/usr/sbin/nologin$' || fail "no user of its own"
[ "$(stat -c '%U %a' "$root/etc/mtun/keys")" = "root 700" ] || fail "keys are open"

# What the programs say of themselves is in the package, every page of it, for man and for shells.
inside mtun man /tmp/man >/dev/null || fail "man"
inside mtund --man >"$root/tmp/man/mtund.8" || fail "the page of mtund"
for page in "$root"/tmp/man/*; do
    packed="$root/usr/share/man/man${page##*.}/$(basename "$page").gz"
    [ -e "$packed" ] || fail "$(basename "$page") is not in the package"
    zcat "$packed" | cmp - "$page" || fail "$packed is of another program"
done
[ "$(find "$root/tmp/man" -type f | wc -l)" -eq "$(find "$root"/usr/share/man -name 'mtun*.gz' | wc -l)" ] || fail "a page of no command"
inside mtun completions bash | cmp - "$root/usr/share/bash-completion/completions/mtun" || fail "completions"
inside bash -c '. /usr/share/bash-completion/completions/mtun' || fail "bash does not take the completions"
rm -r "$root/tmp/man"

# A home agent, as a person makes one, started as the unit starts it.
inside mtun init agent >"$place/init.log" || fail "init"
inside mtun policy check /etc/mtun/mtun.kdl >/dev/null || fail "what init wrote has faults"
ip netns add "$namespace"
ip netns exec "$namespace" ip link set lo up
ip netns exec "$namespace" ip address add 2001:db8:100::1/64 dev lo nodad
mkdir -p "$root/dev/net" "$root/run/mtun" "$root/run/credentials"
mknod -m 0666 "$root/dev/net/tun" c 10 200
install -m 0400 "$root/etc/mtun/keys/home.key" "$root/run/credentials/keys_home.key"
inside chown -R mtun:mtun /run/mtun /run/credentials
inside install -d -o mtun -g mtun -m 0700 /var/lib/mtun
start() {
    # A /proc and a /sys of its own, because the daemon reads and sets those of its network.
    ip netns exec "$namespace" unshare --mount --fork --kill-child sh -c "
        mount --bind /proc '$root/proc' && mount -t sysfs sysfs '$root/sys' &&
        exec chroot '$root' setpriv --reuid mtun --regid mtun --clear-groups \
            --inh-caps=-all,+net_admin,+net_raw --ambient-caps=-all,+net_admin,+net_raw \
            --bounding-set=-all,+net_admin,+net_raw --no-new-privs \
            env -i PATH=/usr/sbin:/usr/bin CREDENTIALS_DIRECTORY=/run/credentials \
            mtund --policy /etc/mtun/mtun.kdl" >"$place/daemon.log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        inside mtun status >"$place/status" 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || { cat "$place/daemon.log"; fail "the daemon ended"; }
        sleep 0.1
    done
    cat "$place/daemon.log" "$place/status"
    fail "the daemon does not answer"
}
start
grep -q home-agent "$place/status" || { cat "$place/status"; fail "another role"; }

# An upgrade keeps what was edited.
echo '// edited' >>"$root/etc/mtun/mtun.kdl"
echo 'MTUND_OPTIONS="--read-group adm"' >"$root/etc/default/mtund"
edited="$(cat "$root/etc/mtun/mtun.kdl" "$root/etc/default/mtund")"
inside dpkg --install --force-confold /tmp/mtun.deb >"$place/upgrade.log" 2>&1 || { cat "$place/upgrade.log"; fail "upgrade"; }
[ "$edited" = "$(cat "$root/etc/mtun/mtun.kdl" "$root/etc/default/mtund")" ] || fail "an upgrade changed what was edited"

stop || { cat "$place/daemon.log"; fail "the daemon ended badly"; }
daemon=""
inside dpkg --remove mtun >/dev/null 2>&1 || fail "remove"
[ -e "$root/etc/mtun/keys/home.key" ] || fail "a removal took the key"
inside dpkg --purge mtun >"$place/purge.log" 2>&1 || { cat "$place/purge.log"; fail "purge"; }
diff <(echo "$before") <(everything) ||
    fail "a purge left something"
[ "$users" = "$(cat "$root/etc/passwd" "$root/etc/group")" ] || fail "a purge left a user"
echo "package ok: $(stat -c %s "$package") octets"

# The module's package: DKMS builds it for Debian's kernel, by the headers in the root.
modules() { find "$root/lib/modules" -name 'mtun.ko*'; }
cp "${packages##*$'\n'}" "$root/tmp/mtun-dkms.deb"
mount -t proc proc "$root/proc"
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends dkms gcc make linux-headers-amd64 >"$place/headers.log" 2>&1 ||
    { tail "$place/headers.log"; fail "no headers"; }
inside dpkg --install /tmp/mtun-dkms.deb >"$place/dkms.log" 2>&1 || { tail -n 30 "$place/dkms.log"; fail "the module"; }
[ -n "$(modules)" ] || { tail -n 30 "$place/dkms.log"; inside dkms status; fail "no module was built"; }
inside dpkg --purge mtun-dkms >>"$place/dkms.log" 2>&1 || { tail "$place/dkms.log"; fail "purge of the module"; }
[ -z "$(modules)$(find "$root/usr/src" -name 'kmod-mtun*')" ] || fail "a purge left the module"
umount "$root/proc"
echo "module package ok"
