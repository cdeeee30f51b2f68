#!/bin/bash
# The pages for users, followed on machines: each is a clean Debian with its own systemd as its first
# process, in a network of its own. The package is installed there as a page says, the unit starts
# the daemon, and what the service manager and the kernel say of it is looked at.
#
#   tests/road.sh PROGRAMS
#
#             wlan0 2001:db8:1::7 --.                       .-- agent   2001:db8:100::1, ...100::/48
#   router    wwan0 2001:db8:2::7 --+-- net (two providers) +
#   (or node) lan0  2001:db8:100:4200::1                    '-- correspondent 2001:db8:c::9
#
# PROGRAMS is a directory with mtund and mtun; MTUN_BEFORE is one with those of an older build, which
# are then the version before. Needs root, debootstrap, systemd-nspawn and a Debian
# mirror (MTUN_MIRROR, http://deb.debian.org/debian if not set); MTUN_ROOT is a root to copy instead
# of asking the mirror, made there if it is not. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
programs="$(cd "$1" && pwd)"
mirror="${MTUN_MIRROR:-http://deb.debian.org/debian}"
nspawn="${MTUN_NSPAWN:-systemd-nspawn}"

place="$(mktemp -d)"
name="mtun-road-$$"
declare -A leader manager
fail() {
    echo "road: $*" >&2
    for machine in "${!leader[@]}"; do
        on "$machine" "journalctl --no-pager -u mtund | tail -n 30" >&2 || true
    done
    exit 1
}
end() {
    for machine in "${!manager[@]}"; do
        halt "$machine" || true
    done
    for network in $(ip netns list | awk -v name="$name" 'index($1, name) == 1 { print $1 }'); do
        ip netns del "$network" || true
    done
    rm -rf --one-file-system "$place"
}
trap end EXIT
trap 'echo "road: line $LINENO: $BASH_COMMAND" >&2' ERR

# ---- machines ----

# A machine that was switched off; its files stay.
halt() { # halt MACHINE
    [ -n "${manager[$1]:-}" ] || return 0
    # SIGRTMIN+4 to its first process asks systemd to power off.
    kill -s 38 "${leader[$1]}" 2>/dev/null || true
    wait "${manager[$1]}" 2>/dev/null || true
    unset "manager[$1]" "leader[$1]"
}

# A machine whose power goes: nothing gets to tidy up, and what its kernel knew is gone.
unplug() { # unplug MACHINE
    kill -KILL "${leader[$1]}"
    wait "${manager[$1]}" 2>/dev/null || true
    unset "manager[$1]" "leader[$1]"
    local port
    for port in $(ip -n "$name-net" -brief link | cut -d@ -f1 | grep "^${1:0:4}-"); do
        ip -n "$name-net" link del "$port"
    done
    [ "$1" != router ] || ip -n "$name-behind" link del port
    ip netns del "$name-$1"
    plug "$1"
}

# Starts a machine; further words are nspawn's.
boot() { # boot MACHINE [OPTION...]
    local machine="$1"
    shift
    # A fast path needs the right to load BPF programs, which containers do not have by themselves.
    "$nspawn" --quiet --register=no --keep-unit --directory="$place/$machine" \
        --machine="$machine" --network-namespace-path="/run/netns/$name-$machine" \
        --bind="$place/tun:/dev/net/tun" --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON \
        --system-call-filter=bpf --system-call-filter=perf_event_open --console=pipe --boot "$@" \
        >"$place/$machine.console" 2>&1 </dev/null &
    manager["$machine"]=$!
    local child="" _
    for _ in $(seq 300); do
        child="$(pgrep -P "${manager[$machine]}" | head -n 1 || true)"
        leader["$machine"]="$child"
        if [ -n "$child" ] && on "$machine" "systemctl is-system-running --wait" >/dev/null 2>&1; then
            return
        fi
        # A container has units that fail for reasons of its own; that it has come up is enough.
        if [ -n "$child" ] && on "$machine" "systemctl is-active --quiet multi-user.target" 2>/dev/null; then
            return
        fi
        sleep 0.1
    done
    tail -n 20 "$place/$machine.console"
    fail "$machine does not boot"
}

# Runs a line at a machine, as root in its shell.
on() { # on MACHINE LINE
    nsenter --target "${leader[$1]}" --all -- /usr/bin/env -i HOME=/root TERM=dumb LC_ALL=C \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive NO_COLOR=1 \
        /bin/bash -ec "cd /root; $2"
}

# What follow.sh calls for a machine.
typed_at() { # typed_at MACHINE
    cat >"$place/at-$1" <<EOF
#!/bin/bash
exec nsenter --target ${leader[$1]} --all -- /usr/bin/env -i HOME=/root TERM=dumb LC_ALL=C \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive NO_COLOR=1 \
    /bin/bash -ec "cd /root; \$1"
EOF
    chmod +x "$place/at-$1"
    echo "$place/at-$1"
}

# A root that machines are copies of: Debian with systemd, and what a person has on a server.
base="${MTUN_ROOT:-$place/base}"
if [ ! -e "$base/etc/debian_version" ]; then
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,nftables,adduser,iproute2,iputils-ping,openssh-server,openssh-client \
        bookworm "$base" "$mirror" >"$place/debootstrap.log" 2>&1 ||
        { tail "$place/debootstrap.log"; fail "no clean root"; }
fi
packages="$(MTUN_PROGRAMS="$programs" bash packaging/deb.sh "$place")"
package="${packages%%$'\n'*}"
make() { # make MACHINE
    cp -a "$base" "$place/$1"
    cp "$package" "$place/$1/root/"
    echo "$1" >"$place/$1/etc/hostname"
    rm -f "$place/$1/etc/machine-id"
    # One may go from each to each, as a person has arranged it.
    install -d -m 0700 "$place/$1/root/.ssh"
    install -m 0600 "$place/id" "$place/$1/root/.ssh/id_ed25519"
    install -m 0600 "$place/id.pub" "$place/$1/root/.ssh/authorized_keys"
    echo "StrictHostKeyChecking no" >"$place/$1/root/.ssh/config"
    ln -sf /lib/systemd/system/systemd-networkd.service \
        "$place/$1/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
}
ssh-keygen -q -t ed25519 -N "" -f "$place/id"

# ---- the network between them ----

# As udev makes it: everybody may open it, and needs a right to do more.
mknod -m 0666 "$place/tun" c 10 200

network() { # network NAME
    ip netns add "$name-$1"
    ip netns exec "$name-$1" ip link set lo up
}
cable() { # cable MACHINE INTERFACE PREFIX
    local port="${1:0:4}-$2"
    ip -n "$name-net" link add "$port" type veth peer name "$2" netns "$name-$1"
    ip -n "$name-net" address add "$3::1/64" dev "$port" nodad
    ip -n "$name-net" link set "$port" up
}
plug() { # plug MACHINE: its network, and the cables into it
    network "$1"
    case "$1" in
    agent)
        cable agent eth0 2001:db8:f0
        ip -n "$name-net" route replace 2001:db8:100::/48 via 2001:db8:f0::2
        ;;
    correspondent) cable correspondent eth0 2001:db8:c ;;
    router)
        cable router wlan0 2001:db8:1
        cable router wwan0 2001:db8:2
        # Nobody is behind the router; the cable ends in a machine that is switched off.
        ip -n "$name-behind" link add port type veth peer name lan0 netns "$name-router"
        ip -n "$name-behind" link set port up
        ;;
    esac
}
for machine in net behind; do
    network "$machine"
done
ip netns exec "$name-net" sysctl -qw net.ipv6.conf.all.forwarding=1
for machine in agent router correspondent; do
    plug "$machine"
done
# What a machine is told of its networks, as most are.
attached() { # attached MACHINE INTERFACE ADDRESS [LINE...]
    {
        printf '[Match]\nName=%s\n[Network]\nIPv6AcceptRA=no\nConfigureWithoutCarrier=no\n' "$2"
        printf 'Address=%s\n' "$3"
        shift 3
        printf '%s\n' "$@"
    } >"$place/$1/etc/systemd/network/$2.network"
}
start() { # start MACHINE: the files that every run of it begins with, and the machine
    make "$1"
    case "$1" in
    agent)
        attached agent eth0 2001:db8:f0::2/64 Address=2001:db8:100::1/128 Gateway=2001:db8:f0::1
        ;;
    correspondent) attached correspondent eth0 2001:db8:c::9/64 Gateway=2001:db8:c::1 ;;
    router)
        attached router wlan0 2001:db8:1::7/64 '[Route]' Gateway=2001:db8:1::1 Metric=512
        attached router wwan0 2001:db8:2::7/64 '[Route]' Gateway=2001:db8:2::1 Metric=1024
        attached router lan0 2001:db8:100:4200::1/64
        ;;
    esac
    boot "$1"
}
follow() { # follow PAGE [MACHINE=COMMAND...]
    echo "== docs/$1"
    bash tests/follow.sh "docs/$1" "${@:2}" || fail "docs/$1"
}

# ---- the pages ----

start agent
start router
agent="$(typed_at agent)"
router="$(typed_at router)"
follow getting-started.md "agent=$agent" "router=$router"
follow router.md "router=$router"
follow agent.md "agent=$agent"
follow troubleshooting.md "router=$router"

# ---- what the service manager and the kernel say of it ----

property() { on "$1" "systemctl show mtund --property=$2 --value"; }
for machine in agent router; do
    [ "$(property "$machine" SubState)" = running ] || fail "$machine: not running"
    [ "$(property "$machine" NRestarts)" = 0 ] || fail "$machine: restarted"
    id="$(property "$machine" MainPID)"
    status="$(on "$machine" "cat /proc/$id/status")"
    for fact in NoNewPrivs:1 Seccomp:2; do
        grep -q "^${fact%:*}:[[:space:]]*${fact#*:}$" <<<"$status" || fail "$machine: not $fact: $status"
    done
    ! grep -q '^Uid:[[:space:]]*0' <<<"$status" || fail "$machine: runs as root"
    effective=$((16#$(awk '/^CapEff:/ { print $2 }' <<<"$status")))
    # NET_ADMIN, NET_RAW, PERFMON, BPF.
    [ $((effective & ~((1 << 12) | (1 << 13) | (1 << 38) | (1 << 39)))) = 0 ] ||
        fail "$machine: holds more than the unit says: $status"
    # The root is closed to it, and so are other users' keys.
    # shellcheck disable=SC2016 # for the machine's shell
    on "$machine" 'nsenter --target '"$id"' --mount -- sh -c "! touch /etc/mtun/x /usr/x /root/x 2>/dev/null"' ||
        fail "$machine: it could write to the root"
    key="$(awk '!/^#/ { print $NF }' "$place/$machine/etc/mtun/keys/home.key" | tail -n 1)"
    [ "${#key}" -ge 32 ] || fail "$machine: no key to look for"
    ! on "$machine" "journalctl --no-pager" | grep -qF "$key" || fail "$machine: the key is in the journal"
done
echo "== systemd ok"

# A kill is a restart after a moment; bindings are those of before and the router needs no word.
# What the kernel carries by itself goes on meanwhile: each tunnel's programs are kept where the unit
# has put a file system for them.
on agent "mtun status --json" >"$place/before.json" || true
for machine in agent router; do
    # shellcheck disable=SC2016 # for the machine's shell
    on "$machine" '[ -n "$(find /run/mtun.pins/links -type f)" ]' ||
        fail "$machine: nothing is kept in /run/mtun.pins: $(on "$machine" "mountpoint /run/mtun.pins" || true)"
done
on agent "kill -KILL $(property agent MainPID)"
for _ in $(seq 100); do
    [ "$(property agent NRestarts)" = 1 ] && on agent "mtun status" >"$place/status" 2>&1 && break
    sleep 0.1
done
[ "$(property agent NRestarts)" = 1 ] || fail "a killed agent was not started again"
on agent "journalctl --no-pager -u mtund" | grep -qF "flows go on as the killed daemon left them" ||
    fail "the agent did not find what the killed one had left"
bound() { grep -o '"care_of":"[^"]*"' "$1" | sort; }
on agent "mtun status --json" >"$place/after.json" || true
held="$(bound "$place/before.json")"
[ -n "$held" ] || fail "no bindings at the agent: $(cat "$place/before.json")"
[ "$held" = "$(bound "$place/after.json")" ] ||
    fail "bindings after the kill: $(cat "$place/after.json")"
on agent "ping -c 3 -i 0.2 2001:db8:100::42" >/dev/null || fail "nothing goes on after the kill"

# Another network service that takes every rule for its own must not take ours.
rules="$(on router "ip -6 rule")"
on router "systemctl restart systemd-networkd"
on router "networkctl --no-pager >/dev/null"
[ "$rules" = "$(on router "ip -6 rule")" ] || fail "systemd-networkd took rules away"
on agent "ping -c 3 -i 0.2 2001:db8:100::42" >/dev/null || fail "nothing goes on after systemd-networkd"

# On the road back to the version before, and forth again, at both ends: edited files stay as they are,
# and the agent holds every binding before anybody registers anew.
on router "echo '// edited' >>/etc/mtun/mtun.kdl"
mkdir "$place/older"
older="$(MTUN_PROGRAMS="${MTUN_BEFORE:-$programs}" MTUN_VERSION=0.0.9 bash packaging/deb.sh "$place/older")"
for other in "${older%%$'\n'*}" "$package"; do
    version="$(dpkg-deb --field "$other" Version)"
    for machine in agent router; do
        cp "$other" "$place/$machine/root/other.deb"
        on "$machine" "dpkg --install --force-confold other.deb" >"$place/other.log" 2>&1 ||
            { cat "$place/other.log"; fail "$machine: no way to $version"; }
        # shellcheck disable=SC2016 # for dpkg-query
        [ "$(on "$machine" 'dpkg-query --show --showformat \${Version} mtun')" = "$version" ] ||
            fail "$machine: it is not $version"
        [ "$(property "$machine" SubState)" = running ] || fail "$machine: not running with $version"
        on agent "mtun status --json" >"$place/after.json" || true
        [ "$machine" != agent ] || [ "$held" = "$(bound "$place/after.json")" ] ||
            fail "bindings with $version: $(cat "$place/after.json")"
        on agent "ping -c 3 -i 0.2 2001:db8:100::42" >/dev/null || fail "$machine: nothing goes on with $version"
    done
done
on router "tail -n 1 /etc/mtun/mtun.kdl" | grep -q edited || fail "an upgrade took an edited policy"
echo "== kill, network service, up and down one version ok"

# The power goes at both ends in the middle of work, and comes back: nobody is there to help.
# shellcheck disable=SC2016 # for the machine's shell
on router 'cd /etc/mtun && cp mtun.kdl a.kdl && cp mtun.kdl b.kdl && echo "// again" >>b.kdl
    setsid sh -c "while mtun policy apply a.kdl && mtun policy apply b.kdl; do touch applied; done" \
        >/dev/null 2>&1 &'
for _ in $(seq 100); do
    [ ! -e "$place/router/etc/mtun/applied" ] || break
    sleep 0.1
done
[ -e "$place/router/etc/mtun/applied" ] || fail "no policy was applied"
unplug router
unplug agent
boot agent
boot router
well() { # well MACHINE WHAT
    local _
    for _ in $(seq 300); do
        ! on "$1" "mtun status" >"$place/status" 2>&1 || ! grep -q '^health *ok' "$place/status" || return 0
        sleep 0.1
    done
    cat "$place/status"
    fail "$1: not well $2"
}
well agent "after a power cut"
well router "after a power cut"
on router "mtun policy history" >/dev/null || fail "no history of policies after a power cut"
on agent "ping -c 3 -i 0.2 2001:db8:100::42" >/dev/null || fail "nothing goes on after a power cut"
echo "== power cut at both ends ok"

# It comes back by itself when the machine does, from a root that nobody can write.
halt router
boot router --read-only --tmpfs=/var --tmpfs=/tmp
well router "on a read-only root"
on agent "ping -c 3 -i 0.2 2001:db8:100::42" >/dev/null || fail "nothing goes from a read-only root"
echo "== boot from a read-only root ok"

# ---- a node, and a server that it goes straight to ----

halt router
halt agent
rm -rf --one-file-system "$place/agent" "$place/router"
start agent
on agent "apt-get install -y ./mtun_*.deb" >/dev/null
start router
start correspondent
agent="$(typed_at agent)"
node="$(typed_at router)"
follow node.md "agent=$agent" "node=$node"
follow correspondent.md "node=$node" "correspondent=$(typed_at correspondent)"

# A purge leaves nothing running.
on router "apt-get purge -y mtun" >/dev/null
on router "! ip link show mtun0 2>/dev/null && ! nft list table ip6 mtun 2>/dev/null" || fail "a purge left a tunnel"
echo "road ok"
