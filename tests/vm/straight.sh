#!/bin/bash
# Our packet path and the kernel's own Mobile IPv6 as the two ends of one optimized route, inside
# the test boot. Prints "ok" and "not ok" lines.
#
#   mobile (home address H, care-of address C) ==== wire0 ==== correspondent (N)
#
# Three turns: ours is the mobile, ours is the correspondent, ours is both.
failed=0
H=2001:db8:f::1 C=2001:db8:2::2 N=2001:db8:2::1

ok() { echo "ok $*"; }
bad() { echo "not ok $*"; failed=$((failed + 1)); }
check() { # check NAME COMMAND...: it must succeed
    local name="$1" output
    shift
    if output="$("$@" 2>&1)"; then ok "$name"; else bad "$name: $* -> $output"; fi
}
at() { ip netns exec "$@"; } # at NAMESPACE COMMAND...
# The clock of an emulated machine may run ten times too fast when its host has much to do: what is
# waited for is counted in tries, and limits in seconds are far away.
eventually() { # eventually COMMAND...: polls
    for _ in $(seq 2000); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    return 1
}

world() {
    local ns
    for ns in mn cn; do
        ip netns add $ns
        at $ns bash -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
            echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
        at $ns ip link set lo up
    done
    ip link add wire0 netns mn type veth peer name wire0 netns cn
    at mn ip addr add $C/64 dev wire0 nodad
    at cn ip addr add $N/64 dev wire0 nodad
    at mn ip link set wire0 up
    at cn ip link set wire0 up
    at cn iperf3 -s -D -p 5201 >/dev/null 2>&1
    eventually at cn bash -c 'exec 3<>/dev/tcp/::1/5201'
}
ours() { # ours NAMESPACE ROLE: starts our end, with its device up
    ip netns exec "$1" straight "$2" mtun0 wire0 $H $C $N >/tmp/ours."$1" 2>&1 &
    echo $! >/tmp/id."$1"
    eventually grep -q ready /tmp/ours."$1" || return 1
    at "$1" bash -c 'echo 0 >/proc/sys/net/ipv6/conf/mtun0/accept_ra'
    at "$1" ip link set mtun0 mtu 1476 up
}
our_mobile() {
    ours mn mobile && at mn ip addr add $H/128 dev mtun0 nodad &&
        at mn ip route add $N/128 dev mtun0 src $H
}
our_correspondent() { ours cn correspondent && at cn ip route add $H/128 dev mtun0 src $N; }
no_device() { ! at "$1" ip link show mtun0; }
end_of() { # end_of NAMESPACE: ours ends, and its device and routes with it
    kill "$(cat /tmp/id."$1")" && eventually no_device "$1"
}
kernel_mobile() {
    at mn ip link add home type dummy && at mn ip link set home up &&
        at mn ip addr add $H/128 dev home nodad home &&
        at mn ip route add $N/128 dev wire0 src $H &&
        at mn ip xfrm state add src $H dst $N proto hao mode ro coa $C \
            sel src $H/128 dst $N/128 &&
        at mn ip xfrm policy add src $H/128 dst $N/128 dir out ptype sub priority 10 \
            tmpl src $H dst $N proto hao mode ro level use &&
        at mn ip xfrm state add src :: dst :: proto route2 mode ro coa :: flag wildrecv &&
        at mn ip xfrm policy add src ::/0 dst ::/0 dir in ptype sub priority 19 \
            tmpl src :: dst :: proto route2 mode ro level use
}
kernel_correspondent() {
    at cn ip route add $H/128 via $C dev wire0 &&
        at cn ip xfrm state add src $N dst $H proto route2 mode ro coa $C \
            sel src $N/128 dst $H/128 &&
        at cn ip xfrm policy add src $N/128 dst $H/128 dir out ptype sub priority 10 \
            tmpl src $N dst $H proto route2 mode ro level use &&
        at cn ip xfrm state add src $H dst $N proto hao mode ro coa $C \
            sel src $H/128 dst $N/128 &&
        at cn ip xfrm policy add src $H/128 dst $N/128 dir in ptype sub priority 10 \
            tmpl src $H dst $N proto hao mode ro level use
}
no_kernel() { # no_kernel NAMESPACE
    at "$1" ip xfrm policy flush ptype sub && at "$1" ip xfrm policy flush &&
        at "$1" ip xfrm state flush
}

pings() { # pings NAMESPACE SOURCE DESTINATION [SECONDS]: all of them answered
    local said
    said="$(at "$1" ping -6 -n -c 5 -i 0.05 -W "${4:-600}" -I "$2" "$3" 2>&1)"
    case "$said" in *' 5 received'*) ;; *) echo "$said" && return 1 ;; esac
}
from_home() { pings mn $H $N; }
to_home() { pings cn $N $H; }
tcp() { at mn timeout -s KILL 900 iperf3 -6 -c $N -B $H -p 5201 -t 1 "$@"; }
carries() { # carries WHO: everything both ways, with both headers on the wire and no plain packet
    ip netns exec mn tcpdump -Z root -i wire0 -n -U -w /tmp/wire ip6 >/tmp/dump.out 2>/tmp/dump.err &
    local dump=$!
    eventually grep -q listening /tmp/dump.err
    check "$1: ping from home" from_home
    check "$1: ping to home" to_home
    check "$1: TCP from home" tcp
    check "$1: TCP to home" tcp -R
    kill $dump
    wait $dump 2>/dev/null
    # The option's usual place, and the header's first octets.
    local option routing plain
    option=$(tcpdump -Z root -r /tmp/wire -n "ip6 proto 60 and src $C and ip6[46] = 0xc9" 2>/dev/null | wc -l)
    routing=$(tcpdump -Z root -r /tmp/wire -n "ip6 proto 43 and dst $C and ip6[42] = 2" 2>/dev/null | wc -l)
    plain=$(tcpdump -Z root -r /tmp/wire -n "src $H or dst $H" 2>/dev/null | wc -l)
    if [ "$option" -ge 20 ] && [ "$routing" -ge 20 ] && [ "$plain" = 0 ]; then
        ok "$1: both headers on the wire ($option out, $routing back), nothing plain"
    else
        bad "$1: $option with the option, $routing with the header, $plain plain"
    fi
}

world
check "our mobile" our_mobile
check "the kernel's correspondent" kernel_correspondent
carries "our mobile, the kernel's correspondent"
at cn ip xfrm state flush
if pings mn $H $N 2 >/dev/null; then bad "the kernel took packets without a binding"; else
    ok "without a binding the kernel takes nothing of ours"; fi
check "the kernel forgets" no_kernel cn
at cn ip route del $H/128

check "our correspondent" our_correspondent
carries "both ours"
check "our mobile ends" end_of mn

check "the kernel's mobile" kernel_mobile
carries "the kernel's mobile, our correspondent"
check "our correspondent ends" end_of cn
if pings mn $H $N 2 >/dev/null; then bad "packets were taken when nobody was there"; else
    ok "without us nobody takes them"; fi

echo "note $failed failed, $(cut -d' ' -f1 /proc/uptime) s"
[ "$failed" = 0 ]
