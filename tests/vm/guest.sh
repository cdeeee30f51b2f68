#!/bin/bash
# What is tried with the module, inside the test boot. Prints "ok" and "not ok" lines.
#
#   a ---- mr ==== up1 ==== ha ---- b
#              ==== up2 ====
#
# a and b are hosts, mr and ha routers; between these two, only tunnel packets.
failed=0
A=2001:db8:a::2 B=2001:db8:b::2

ok() { echo "ok $*"; }
bad() { echo "not ok $*"; failed=$((failed + 1)); }
check() { # check NAME COMMAND...: it must succeed
    local name="$1" output
    shift
    if output="$("$@" 2>&1)"; then ok "$name"; else bad "$name: $* -> $output"; fi
}
refused() { # refused NAME WORDS COMMAND...: it must fail with these words
    local name="$1" words="$2" output
    shift 2
    if output="$("$@" 2>&1)"; then
        bad "$name: not refused"
    else
        case "$output" in *"$words"*) ok "$name" ;; *) bad "$name: said $output" ;; esac
    fi
}
at() { ip netns exec "$@"; } # at NAMESPACE COMMAND...
eventually() { # eventually SECONDS COMMAND...: polls
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}
counter() { # counter NAMESPACE REASON
    at "$1" mtunctl counters mtun0 | sed -n "s/^$2 //p"
}
device_says() { # device_says NAMESPACE WORD
    at "$1" mtunctl device mtun0 | sed -n "s/^$2 //p"
}
rose() { # rose NAME NAMESPACE REASON BEFORE BY: the counter moved by at least that
    local now
    now=$(counter "$2" "$3")
    if [ "$now" -ge $(($4 + $5)) ]; then ok "$1"; else bad "$1: $3 $4 -> $now"; fi
}
pings() { # pings COUNT [OPTIONS]: all of them answered
    local count="$1"
    shift
    at a ping -6 -n -q -c "$count" -i 0.05 -W 5 "$@" $B 2>&1 |
        grep -q " $count received, 0% packet loss"
}

link() { # link NS1 DEV1 ADDRESS1 NS2 DEV2 ADDRESS2
    ip link add "$2" netns "$1" type veth peer name "$5" netns "$4"
    at "$1" ip addr add "$3/64" dev "$2" nodad
    at "$4" ip addr add "$6/64" dev "$5" nodad
    at "$1" ip link set "$2" up
    at "$4" ip link set "$5" up
}
world() {
    local ns
    for ns in a mr ha b; do
        ip netns add $ns
        at $ns ip link set lo up
        at $ns bash -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
            echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    done
    link a eth0 $A mr lan 2001:db8:a::1
    link mr up1 2001:db8:1::2 ha up1 2001:db8:1::1
    link mr up2 2001:db8:2::2 ha up2 2001:db8:2::1
    link b eth0 $B ha lan 2001:db8:b::1
    at a ip route add default via 2001:db8:a::1
    at b ip route add default via 2001:db8:b::1
}
tunnel() { # tunnel NAMESPACE FAR-PREFIX: mtun0 as the way there
    at "$1" ip link add mtun0 type mtun && at "$1" ip link set mtun0 up &&
        at "$1" ip route add "$2" dev mtun0 &&
        at "$1" mtunctl device mtun0 mask-out src,dst mask-in src,dst
}
paths() { # both ends, path 1 over up1
    at mr mtunctl path add mtun0 path 1 registration 7 generation 1 \
        local 2001:db8:1::2 remote 2001:db8:1::1 link up1 &&
        at ha mtunctl path add mtun0 path 1 registration 7 generation 1 \
            local 2001:db8:1::1 remote 2001:db8:1::2 link up1
}
flows() { # flows GENERATION: both directions at both ends
    at mr mtunctl flow add mtun0 out path 1 generation "$1" src $A dst $B &&
        at mr mtunctl flow add mtun0 in path 1 generation "$1" src $B dst $A &&
        at ha mtunctl flow add mtun0 out path 1 generation "$1" src $B dst $A &&
        at ha mtunctl flow add mtun0 in path 1 generation "$1" src $A dst $B
}
everything() { tunnel mr 2001:db8:b::/64 && tunnel ha 2001:db8:a::/64 && paths && flows 1; }
no_tunnel() { at mr ip link del mtun0; at ha ip link del mtun0; }

world
check "the link kind loads the module" tunnel mr 2001:db8:b::/64
check "a second device in another namespace" tunnel ha 2001:db8:a::/64
check "the driver names itself" at mr bash -c 'ethtool -i mtun0 | grep -q "driver: mtun"'
check "ethtool shows the reasons" at mr bash -c 'ethtool -S mtun0 | grep -q up-miss'
check "no link-local address" at mr bash -c '! ip -6 addr show dev mtun0 | grep -q fe80'

# Nothing remembered, nobody listening.
at a ping -6 -n -q -c 3 -i 0.05 -W 1 $B >/dev/null 2>&1
rose "a miss is counted" mr up-miss 0 3
rose "a miss without a listener is dropped and counted" mr drop-no-daemon 0 3

check "paths" paths
check "flows" flows 1
check "ping through the tunnel" pings 5
rose "out by remembered decisions" mr out-hit 0 5
rose "in by remembered decisions" ha in-hit 0 5
refused "a path twice" "path: exists" paths
refused "a flow of another generation" "generation: not the registration's" flows 9

at b iperf3 -s -D >/dev/null 2>&1
eventually 10 at b bash -c 'exec 3<>/dev/tcp/::1/5201' || bad "iperf3 does not start"
speed() { # Mbit/s from a to b
    at a timeout -s KILL 20 iperf3 -6 -c $B -t 4 -O 1 -f m 2>/dev/null | sed -n 's/.* \([0-9.]*\) Mbits.*receiver/\1/p'
}
through=$(speed)
if [ -n "$through" ]; then ok "TCP through the tunnel: $through Mbit/s"; else bad "no TCP"; fi

# A new generation makes all that was remembered stale, at once.
stale=$(counter mr up-stale)
check "a new generation" at mr mtunctl generation mtun0 registration 7 generation 2
if pings 1 -W 1; then bad "a stale decision was used"; else ok "a stale decision is not used"; fi
rose "stale is counted" mr up-stale "$stale" 1
refused "a generation never falls" "generation: never falls" \
    at mr mtunctl generation mtun0 registration 7 generation 1
at ha mtunctl generation mtun0 registration 7 generation 2
check "decided again" flows 2
check "ping after that" pings 3

# A handover changes the path and no flow.
check "handover at the router" at mr mtunctl path set mtun0 path 1 \
    local 2001:db8:2::2 remote 2001:db8:2::1 link up2
check "handover at the agent" at ha mtunctl path set mtun0 path 1 \
    local 2001:db8:2::1 remote 2001:db8:2::2 link up2
sent() { at mr cat /sys/class/net/up2/statistics/tx_packets; }
before=$(sent)
check "ping after the handover" pings 5
if [ "$(sent)" -ge $((before + 5)) ]; then ok "by the other link"; else bad "by the other link"; fi

# Unload while packets flow.
at a timeout -s KILL 6 ping -6 -n -q -f -w 3 $B >/dev/null 2>&1 &
at a timeout -s KILL 6 iperf3 -6 -c $B -t 4 >/dev/null 2>&1 &
sleep 1
check "unload under traffic" rmmod mtun
wait
if ip netns exec mr ip link show mtun0 >/dev/null 2>&1; then
    bad "the device survived"
else
    ok "the devices are gone"
fi

check "and all again" everything
check "ping again" pings 3
at a timeout -s KILL 6 ping -6 -n -q -f -w 3 $B >/dev/null 2>&1 &
sleep 1
check "the namespace goes with a live tunnel" ip netns del ha
wait
check "the other end goes" ip netns del mr
gone() { ! dmesg | grep -q 'unregister_netdevice: waiting' && rmmod mtun; }
check "nothing is held" gone

echo "note $failed failed, $(cut -d' ' -f1 /proc/uptime) s"
[ "$failed" = 0 ]
