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
statistic() { # statistic NAMESPACE DEVICE NAME
    at "$1" cat "/sys/class/net/$2/statistics/$3"
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
eventually 60 at b bash -c 'exec 3<>/dev/tcp/::1/5201' || bad "iperf3 does not start"
speed() { # Mbit/s from a to b
    at a timeout -s KILL 20 iperf3 -6 -c $B -t 2 -O 1 -f m 2>/dev/null | sed -n 's/.* \([0-9.]*\) Mbits.*receiver/\1/p'
}
carries() { at a timeout -s KILL 20 iperf3 -6 -c $B -t 1 >/dev/null 2>&1; }
through=$(speed)
if [ -n "$through" ]; then ok "TCP through the tunnel: $through Mbit/s"; else bad "no TCP"; fi

# Superpackets stay whole as long as the link takes them; cut into pieces, they are put together again.
octets_each() { # octets_each NAMESPACE DEVICE rx|tx COMMAND...: of the packets while the command runs
    local octets packets
    octets=$(statistic "$1" "$2" "$3_bytes") packets=$(statistic "$1" "$2" "$3_packets")
    "${@:4}" >/dev/null 2>&1
    echo $((($(statistic "$1" "$2" "$3_bytes") - octets) /
        ($(statistic "$1" "$2" "$3_packets") - packets + 1)))
}
whole=$(octets_each mr up1 tx carries)
if [ "$whole" -ge 4000 ]; then ok "superpackets leave whole: $whole octets each"; else
    bad "superpackets are cut: $whole octets each"
fi
check "a link that takes none" at mr ethtool -K up1 tx-ipxip6-segmentation off
# Both of one transfer.
collected() { octets_each ha lan tx carries >/tmp/collected; }
pieces=$(octets_each ha up1 rx collected) merged=$(cat /tmp/collected)
if [ "$pieces" -le 1514 ] && [ "$merged" -ge 3000 ]; then
    ok "cut into $pieces octets, received as $merged"
else
    bad "$pieces octets each came in, $merged each went on"
fi
at mr ethtool -K up1 tx-ipxip6-segmentation on

# A new generation makes all that was remembered stale, at once.
# The ageing may have forgotten them before the packet comes.
went_up() { echo $(($(counter mr up-stale) + $(counter mr up-miss))); }
stale=$(went_up)
check "a new generation" at mr mtunctl generation mtun0 registration 7 generation 2
if pings 1 -W 1; then bad "a stale decision was used"; else ok "a stale decision is not used"; fi
if [ "$(went_up)" -gt "$stale" ]; then ok "it goes up, counted"; else bad "it is not counted"; fi
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

# A next hop of the path's own, its neighbour entry flushed before: nothing is lost.
neighbour=2001:db8:2::1
check "an explicit next hop" at mr mtunctl path set mtun0 path 1 next-hop $neighbour
at mr ip neigh flush dev up2 2>/dev/null
check "nothing is lost while the neighbour is found" pings 3
check "back to the routing table" at mr mtunctl path set mtun0 path 1 next-hop ::

# Too big for the path: the sender is told, TCP goes on.
check "a smaller path" at mr mtunctl path set mtun0 path 1 mtu 1400
big=$(counter mr drop-too-big)
if at a ping -6 -n -c 1 -M "do" -s 1400 -W 2 $B 2>&1 | grep -qi 'mtu=1360'; then
    ok "Packet Too Big names 1360"
else
    bad "no Packet Too Big"
fi
rose "too big is counted" mr drop-too-big "$big" 1
if carries; then ok "TCP by the smaller path"; else bad "no TCP by the smaller path"; fi
at mr mtunctl path set mtun0 path 1 mtu 1280
ip netns exec mr timeout 90 tcpdump -Z root -i up2 -n -c 1 'ip6 proto 44' \
    >/tmp/dump 2>/tmp/dump.err &
dump=$!
eventually 60 grep -q listening /tmp/dump.err
check "what cannot be smaller inside" pings 2 -s 1200
if wait $dump; then ok "is fragmented outside"; else bad "is fragmented outside"; fi
if carries; then ok "TCP fragmented outside"; else bad "no TCP fragmented outside"; fi
at mr mtunctl path set mtun0 path 1 mtu 0
at a ip -6 route flush cache

# DSCP and ECN are copied outwards.
at mr timeout 90 tcpdump -Z root -i up2 -n -v -c 1 'ip6 proto 41 and dst 2001:db8:2::1' \
    >/tmp/dump 2>/tmp/dump.err &
eventually 60 grep -q listening /tmp/dump.err
pings 2 -Q 0xb9 >/dev/null
wait $!
if grep -q 'class 0xb9.*class 0xb9' /tmp/dump; then
    ok "the traffic class is copied outwards"
else
    bad "traffic class: $(cat /tmp/dump)"
fi

# Misses go up and come down decided; after the first packet they are remembered.
flush() { at mr mtunctl flow flush mtun0 && at ha mtunctl flow flush mtun0; }
check "flush" flush
# Not by at(): the number must be the listener's own.
ip netns exec mr mtunctl answer mtun0 path 1 generation 2 >/tmp/answer.mr 2>&1 &
listener_mr=$!
ip netns exec ha mtunctl answer mtun0 path 1 generation 2 >/tmp/answer.ha 2>&1 &
listener_ha=$!
eventually 60 grep -q listening /tmp/answer.mr
eventually 60 grep -q listening /tmp/answer.ha
executed=$(counter mr out-executed)
check "the first packet is not lost" pings 5
rose "it came down decided" mr out-executed "$executed" 1
if [ "$(device_says mr flows)" = 2 ] && [ "$(device_says ha flows)" = 2 ]; then
    ok "both directions are remembered"
else
    bad "remembered: $(device_says mr flows) and $(device_says ha flows)"
fi
flush >/dev/null
if carries; then ok "TCP from a miss on"; else bad "no TCP from a miss on"; fi
refused "only one listens" "another socket listens" at mr mtunctl answer mtun0 path 1 generation 2
fragments=$(counter mr up-fragment)
at a ping -6 -n -q -c 2 -s 3000 -W 2 $B >/dev/null 2>&1
rose "fragments go up" mr up-fragment "$fragments" 4
kill $listener_mr $listener_ha
wait $listener_mr $listener_ha 2>/dev/null
none=$(counter mr drop-no-daemon)
flush >/dev/null
at a ping -6 -n -q -c 1 -W 1 $B >/dev/null 2>&1
rose "a closed socket listens no more" mr drop-no-daemon "$none" 1

# Outer addresses that are no path's: up if somebody listens, else the stack's own answer.
flows 2
ip link add raw netns ha type ip6tnl mode ip6ip6 local 2001:db8:1::1 remote 2001:db8:2::2 \
    encaplimit none
at ha ip link set raw up
at ha ip route add 2001:db8:a::77 dev raw
admitted=$(counter mr in-hit)
at ha ping -6 -n -q -c 2 -i 0.05 -W 1 -I 2001:db8:b::1 2001:db8:a::77 >/dev/null 2>&1
if [ "$(counter mr in-hit)" = "$admitted" ]; then
    ok "a stranger's tunnel packets are not admitted"
else
    bad "a stranger's tunnel packets were admitted"
fi
at ha ip link del raw

# Route optimization, both ways round, between the router as a mobile node and the agent's host.
H=2001:db8:f::1 N=2001:db8:2::1
optimize() {
    at mr ip addr add $H/128 dev mtun0 nodad &&
        at mr ip route add $N/128 dev mtun0 src $H &&
        at ha ip route add $H/128 dev mtun0 &&
        at mr mtunctl path add mtun0 path 2 registration 8 generation 1 \
            local 2001:db8:2::2 remote $N link up2 encapsulation 1 &&
        at ha mtunctl path add mtun0 path 2 registration 8 generation 1 \
            local $N remote 2001:db8:2::2 link up2 encapsulation 2 &&
        at mr mtunctl flow add mtun0 out path 2 generation 1 src $H dst $N &&
        at mr mtunctl flow add mtun0 in path 2 generation 1 src $N dst $H &&
        at ha mtunctl flow add mtun0 out path 2 generation 1 src $N dst $H &&
        at ha mtunctl flow add mtun0 in path 2 generation 1 src $H dst $N
}
check "route optimization" optimize
direct() { at mr ping -6 -n -q -c 5 -i 0.05 -W 5 -I $H $N | grep -q ' 5 received'; }
at mr timeout 90 tcpdump -Z root -i up2 -n -c 2 -xx 'ip6 proto 60 or ip6 proto 43' \
    >/tmp/dump 2>/tmp/dump.err &
dump=$!
eventually 60 grep -q listening /tmp/dump.err
check "home address option out, routing header back" direct
wait $dump
if grep -q 'c910' /tmp/dump && grep -q '3a02 0201' /tmp/dump; then
    ok "both headers were on the wire"
else
    bad "wire: $(cat /tmp/dump)"
fi
at ha iperf3 -s -D -p 5202 >/dev/null 2>&1
eventually 60 at ha bash -c 'exec 3<>/dev/tcp/::1/5202'
check "TCP route-optimized" at mr timeout -s KILL 20 iperf3 -6 -c $N -B $H -p 5202 -t 1
at ha mtunctl path delete mtun0 path 2
if direct; then bad "admitted without a binding"; else ok "not admitted without a binding"; fi

# The kernel's own Mobile IPv6 as the other end.
kernel_correspondent() {
    at ha ip route del $H/128 dev mtun0
    at ha ip route add $H/128 via 2001:db8:2::2 dev up2
    at ha ip xfrm state add src $N dst $H proto route2 mode ro coa 2001:db8:2::2 \
        sel src $N/128 dst $H/128 &&
        at ha ip xfrm policy add src $N/128 dst $H/128 dir out ptype sub priority 10 \
            tmpl src $N dst $H proto route2 mode ro level use &&
        at ha ip xfrm state add src $H dst $N proto hao mode ro coa 2001:db8:2::2 \
            sel src $H/128 dst $N/128 &&
        at ha ip xfrm policy add src $H/128 dst $N/128 dir in ptype sub priority 10 \
            tmpl src $H dst $N proto hao mode ro level use
}
check "the kernel's own Mobile IPv6" kernel_correspondent
check "ping with it" direct
check "TCP with it" at mr timeout -s KILL 20 iperf3 -6 -c $N -B $H -p 5202 -t 1
at ha ip xfrm policy flush ptype sub
at ha ip xfrm policy flush
at ha ip xfrm state flush
at ha ip route del $H/128
at mr ip route del $N/128 dev mtun0
at mr mtunctl path delete mtun0 path 2

# A tunnel inside the tunnel, superpackets and all.
nested() {
    ip link add inner netns a type ip6tnl mode ip6ip6 local $A remote $B &&
        ip link add inner netns b type ip6tnl mode ip6ip6 local $B remote $A &&
        at a ip addr add 2001:db8:c::1/64 dev inner nodad && at a ip link set inner up &&
        at b ip addr add 2001:db8:c::2/64 dev inner nodad && at b ip link set inner up
}
check "a tunnel in the tunnel" nested
check "ping through both" at a ping -6 -n -q -c 3 -i 0.05 -W 5 2001:db8:c::2
check "TCP through both" at a timeout -s KILL 20 iperf3 -6 -c 2001:db8:c::2 -t 1
at a ip link del inner
at b ip link del inner

# The kernel's ip6tnl at the other end, then as the yardstick between both.
plain_tunnel() { # plain_tunnel NAMESPACE LOCAL REMOTE
    ip link add plain netns "$1" type ip6tnl mode ip6ip6 local "$2" remote "$3" \
        encaplimit none && at "$1" ip link set plain mtu 1460 up
}
check "ip6tnl at the agent" plain_tunnel ha 2001:db8:2::1 2001:db8:2::2
at ha mtunctl path delete mtun0 path 1
at ha ip route replace 2001:db8:a::/64 dev plain
check "ping to ip6tnl" pings 5
check "TCP to ip6tnl" carries
at ha mtunctl path add mtun0 path 1 registration 7 generation 2 \
    local 2001:db8:2::1 remote 2001:db8:2::2 link up2
flows 2
check "ip6tnl at the router" plain_tunnel mr 2001:db8:2::2 2001:db8:2::1
use() { # use DEVICE: both ways
    at mr ip route replace 2001:db8:b::/64 dev "$1"
    at ha ip route replace 2001:db8:a::/64 dev "$1"
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
slice() { # slice DEVICE: Mbit/s by this one
    use "$1"
    if [ "$1" = plain ]; then
        # With ours in the way it would take the packets, which are between a path's addresses.
        at mr mtunctl path set mtun0 path 1 local 2001:db8:2::ff
        at ha mtunctl path set mtun0 path 1 local 2001:db8:2::ff
    else
        at mr mtunctl path set mtun0 path 1 local 2001:db8:2::2
        at ha mtunctl path set mtun0 path 1 local 2001:db8:2::1
    fi
    speed
}
race() { # race NAME TURNS: side by side, who begins changes every time; the median of the ratios
    local turn mine its ours=() theirs=() ratios=()
    for turn in $(seq "$2"); do
        if ((turn % 2)); then
            its=$(slice plain) mine=$(slice mtun0)
        else
            mine=$(slice mtun0) its=$(slice plain)
        fi
        ours+=("$mine") theirs+=("$its") ratios+=("$(ratio "$mine" "$its")")
    done
    # What comes next goes by ours.
    slice mtun0 >/dev/null
    echo "note $1: ours ${ours[*]} ip6tnl ${theirs[*]} Mbit/s, median $(median "${ours[@]}")" \
        "and $(median "${theirs[@]}")"
    goal "$1" "$(median "${ratios[@]}")" '>=' 0.95
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b) printf "%.2f", a / b; else print 0 }'; }
goal() { # goal NAME MEASURED OP LIMIT: not of a kernel that watches every octet it allocates
    if grep -q slub_debug /proc/cmdline; then
        echo "note $1 $2, with the allocator watching"
        return
    fi
    echo "goal $1 $2 $3 $4 $(awk -v m="$2" -v l="$4" 'BEGIN { print (m + 0 >= l + 0) ? "met" : "missed" }')"
}
race kmod-tcp-against-ip6tnl-1-flow 7
at mr mtunctl fill mtun0 path 1 generation 2 count 1000 >/dev/null
race kmod-tcp-against-ip6tnl-1000-flows 7
at mr ip link del plain
at ha ip link del plain

# A hundred thousand flows: in, counted, out; and what that leaves behind.
# What flows are made of, counted by the allocator.
objects() { awk '/^kmalloc.*-128 / { sum += $2 } END { print sum + 0 }' /proc/slabinfo; }
before=$(objects)
filled=$(at mr mtunctl fill mtun0 path 1 generation 2 count 100000)
if [ "$(device_says mr flows)" -ge 100000 ]; then ok "$filled"; else bad "fill: $filled"; fi
rate=${filled##*, } rate=${rate%% *}
goal kmod-flow-add-per-second "$rate" '>=' 50000
check "ping with them there" pings 3
listed=$(at mr mtunctl flow list mtun0 | grep -c '^out')
if [ "$listed" -ge 100000 ]; then ok "all are listed"; else bad "$listed are listed"; fi
interrupted() { at mr mtunctl flow list mtun0 | grep -q interrupted; }
if interrupted; then bad "a list says it changed"; else ok "a list is one view"; fi
(for _ in 1 2 3 4 5 6; do
    at mr mtunctl fill mtun0 path 1 generation 2 count 100000 >/dev/null
done) &
filling=$!
check "a list that changed meanwhile says so" eventually 60 interrupted
wait $filling
flushed=$(at mr mtunctl flow flush mtun0 src 2001:db8:ff00:: mask src)
if [ "$flushed" = "flushed 1" ]; then ok "flush by mask takes what it describes"; else
    bad "flush by mask: $flushed"; fi
check "flush of all" at mr mtunctl flow flush mtun0 out

seq 1 5000 | awk '{ printf "route add 2001:db8:dead:%x::/64 dev lan\n", $1 }' >/tmp/routes
began=$(awk '{ print $1 }' /proc/uptime)
at mr ip -6 -batch /tmp/routes
took=$(awk -v b="$began" '{ print $1 - b }' /proc/uptime)
goal kmod-flow-add-against-route-add "$(awk -v r="$rate" -v t="$took" \
    'BEGIN { printf "%.2f", r / (5000 / t) }')" '>=' 1
sed -i s/add/del/ /tmp/routes
at mr ip -6 -batch /tmp/routes
flat() { [ "$(objects)" -le $((before + 2000)) ]; }
if [ "$before" -gt 0 ]; then ok "the allocator counts"; else bad "no /proc/slabinfo"; fi
for _ in 1 2 3; do
    at mr mtunctl fill mtun0 path 1 generation 2 count 100000 >/dev/null
    at mr mtunctl flow flush mtun0 out >/dev/null
done
check "memory is given back" eventually 60 flat
echo "note $before objects of the size of a flow in use before, $(objects) after 400000 flows"

# The cap, and the ageing.
at mr mtunctl device mtun0 flow-limit 1000
refused "the flow limit" "flow limit reached" \
    at mr mtunctl fill mtun0 path 1 generation 2 count 2000
if [ "$(device_says mr flows)" -le 1000 ]; then ok "never above it"; else bad "above it"; fi
at mr mtunctl device mtun0 flow-idle 1
empty() { [ "$(device_says mr flows)" = 0 ]; }
check "what is not used is forgotten" eventually 30 empty
at mr mtunctl device mtun0 flow-idle 60 flow-limit 131072
flush >/dev/null
check "flows again" flows 2
# An interface that a path names goes away, with and without a next hop of its own.
ip link add gone netns mr type dummy
at mr ip link set gone up
at mr ip addr add 2001:db8:9::1/64 dev gone nodad
at mr mtunctl path add mtun0 path 3 registration 9 generation 1 local 2001:db8:9::1 \
    remote 2001:db8:9::2 link gone next-hop 2001:db8:9::3
at mr mtunctl path add mtun0 path 4 registration 9 generation 1 local 2001:db8:9::1 \
    remote 2001:db8:9::4 link gone
at mr mtunctl flow add mtun0 out path 3 generation 1 src $H dst 2001:db8:b::3
at mr mtunctl flow add mtun0 out path 4 generation 1 src $H dst 2001:db8:b::4
at mr ping -6 -n -q -c 1 -W 1 -I $H 2001:db8:b::3 >/dev/null 2>&1
at mr ping -6 -n -q -c 1 -W 1 -I $H 2001:db8:b::4 >/dev/null 2>&1
check "the link of a path goes" at mr timeout 10 ip link del gone
route=$(counter mr drop-no-route)
at mr ping -6 -n -q -c 1 -W 1 -I $H 2001:db8:b::3 >/dev/null 2>&1
at mr ping -6 -n -q -c 1 -W 1 -I $H 2001:db8:b::4 >/dev/null 2>&1
rose "its packets go nowhere else" mr drop-no-route "$route" 2

# Words that are not ours.
for seed in 1 2 3; do
    check "nonsense over netlink, seed $seed" at mr mtunctl malformed mtun0 seed $seed count 2000
done
check "alive after that" at mr mtunctl device mtun0
refused "another kind of device" "not of kind mtun" at mr mtunctl device lo
refused "a mask for a path" "" at mr mtunctl path set mtun0 path 1 mask-in src
refused "below the smallest MTU" "mtu: below 1280" at mr mtunctl path set mtun0 path 1 mtu 1000
refused "itself as its link" "link: the device itself" at mr mtunctl path set mtun0 path 1 link mtun0
refused "without rights" "Operation not permitted" \
    at mr setpriv --bounding-set=-all --inh-caps=-all --reuid=65534 --clear-groups mtunctl counters mtun0
at mr mtunctl path set mtun0 path 1 local 2001:db8:2::2 remote 2001:db8:2::1 link up2 next-hop :: \
    mtu 0 hop-limit 64 mark 0 encapsulation 0
at mr mtunctl device mtun0 mask-out src,dst mask-in src,dst flow-limit 131072 flow-idle 60 \
    miss-limit 256
generation=$(at mr mtunctl path list mtun0 | sed -n 's/^path 1 .*generation \([0-9]*\) .*/\1/p')
at ha mtunctl generation mtun0 registration 7 generation "$generation"
check "decided once more" flows "$generation"
check "and packets still flow" pings 3

# Handover after handover under traffic: each of the two pairs of addresses is let in all the time.
moving() {
    at ha mtunctl path add mtun0 path 5 registration 7 generation "$generation" \
        local 2001:db8:1::1 remote 2001:db8:1::2 link up1 &&
        at ha mtunctl flow add mtun0 in path 5 generation "$generation" src $A dst $B &&
        at mr mtunctl path add mtun0 path 6 registration 7 generation "$generation" \
            local 2001:db8:1::2 remote 2001:db8:1::1 link up1 &&
        at mr mtunctl flow add mtun0 out path 6 generation "$generation" src $A dst $B
}
check "a path that moves" moving
before=$(statistic mr up1 tx_packets) other=$(statistic mr up2 tx_packets)
at a ping -6 -n -q -c 1000 -i 0.005 -W 20 $B >/tmp/moving 2>&1 &
traffic=$!
handovers=0
while kill -0 $traffic 2>/dev/null; do
    for number in 2 1; do
        at mr mtunctl path set mtun0 path 6 local 2001:db8:$number::2 \
            remote 2001:db8:$number::1 link up$number || bad "a handover"
    done
    handovers=$((handovers + 2))
done
wait $traffic
before=$(($(statistic mr up1 tx_packets) - before)) other=$(($(statistic mr up2 tx_packets) - other))
if grep -q ' 1000 received, 0% packet loss' /tmp/moving && [ $handovers -ge 10 ] &&
    [ $before -ge 50 ] && [ $other -ge 50 ]; then
    ok "$handovers handovers under traffic lose nothing"
else
    bad "$handovers handovers: $(tail -n 2 /tmp/moving), by the links $before and $other"
fi
at mr mtunctl path delete mtun0 path 6
at ha mtunctl path delete mtun0 path 5
flows "$generation"

# Packets that are nearly right, from both sides, in every shape; with nobody to ask, taken where they
# enter, and with somebody who answers everything.
shapes() {
    local encapsulation
    for encapsulation in 1 2 3; do
        at mr mtunctl path add mtun0 path $((6 + encapsulation)) registration 8 generation 1 \
            local 2001:db8:2::2 remote $N link up2 encapsulation $encapsulation &&
            at mr mtunctl flow add mtun0 in path $((6 + encapsulation)) generation 1 \
                src $N dst $H || return 1
    done
    at mr mtunctl flow add mtun0 out path 9 generation 1 src $H dst $N
}
noise() { # noise SEED
    local mac
    mac=$(at mr cat /sys/class/net/up2/address)
    at ha mtunctl noise up2 "$mac" "$1" 2000 2001:db8:2::1 2001:db8:2::2 $B $A &&
        at ha mtunctl noise up2 "$mac" "$1" 2000 2001:db8:2::1 2001:db8:2::2 $N $H &&
        at mr mtunctl noise mtun0 - "$1" 2000 - - $A $B &&
        at mr mtunctl noise mtun0 - "$1" 2000 - - $H $N
}
check "a path of every shape" shapes
admitted=$(counter mr in-hit) sent=$(counter mr out-hit) unread=$(counter mr up-headers)
check "nonsense by the links" noise 1
rose "some of it is admitted" mr in-hit "$admitted" 100
rose "some of it is sent" mr out-hit "$sent" 100
rose "some of it is not to be read" mr up-headers "$unread" 100
at mr mtunctl attach mtun0 link up2
check "nonsense by an attached link" noise 2
at mr mtunctl detach mtun0 link up2
ip netns exec mr mtunctl answer mtun0 path 1 generation "$generation" >/tmp/answer.mr 2>&1 &
listener_mr=$!
eventually 60 grep -q listening /tmp/answer.mr
check "nonsense that is answered" noise 3
if kill -0 $listener_mr; then ok "whoever listens lives"; else bad "the listener ended"; fi
kill $listener_mr
wait $listener_mr 2>/dev/null
for number in 7 8 9; do at mr mtunctl path delete mtun0 path $number; done
flush >/dev/null
check "decided after the noise" flows "$generation"
# What is left of the noise fills backlogs for a while, and a packet that finds one full is lost.
check "and packets flow" eventually 60 pings 3
check "and TCP" carries

# What a flow carried comes back with it, once.
carried() { at mr mtunctl flow take mtun0 out src $A dst $B; }
pings 3
taken=$(carried)
packets=${taken##* packets } packets=${packets%% *}
if [ "${packets:-0}" -ge 3 ]; then ok "a flow is taken out with what it carried"; else
    bad "taken: $taken"
fi
refused "and not twice" "No such file" carried

# A flow that lasts so long, and not longer.
lasting() { # lasting MILLISECONDS
    at mr mtunctl flow add mtun0 out path 1 generation "$generation" src $A dst $B lasts "$1"
}
idle_for() { # idle_for MILLISECONDS
    local idle
    idle=$(at mr mtunctl flow list mtun0 | sed -n "s/^out $A > $B .* idle //p")
    [ "$idle" -ge "$1" ]
}
check "a flow that lasts" lasting 60000
check "while it lasts" pings 2
check "a flow that does not last long" lasting 100
eventually 30 idle_for 300
silent=$(counter mr up-silent)
at a ping -6 -n -q -c 1 -W 1 $B >/dev/null 2>&1
rose "it is asked anew after a silence" mr up-silent "$silent" 1
refused "longer than can be said" "" lasting 90000

# From which interface a packet came.
check "interfaces have numbers" at mr mtunctl device mtun0 mask-out src,dst,ingress doors lan=5
check "flows again" flows "$generation"
named() { # named NUMBER
    at mr mtunctl flow flush mtun0 out &&
        at mr mtunctl flow add mtun0 out path 1 generation "$generation" src $A dst $B ingress "$1"
}
named 5
check "a named interface" pings 2
at mr mtunctl device mtun0 doors ''
if pings 1 -W 1; then bad "another number"; else ok "another number is another flow"; fi
named 1
check "others are one" pings 2
at mr mtunctl device mtun0 mask-out src,dst
flows "$generation"

# Taken where they enter: the stack does not see them.
entered() { at ha sed -n 's/^Ip6InReceives[^0-9]*//p' /proc/net/dev_snmp6/up2; }
check "attach to a link" at ha mtunctl attach mtun0 link up2
refused "not twice" "File exists" at ha mtunctl attach mtun0 link up2
before=$(entered) admitted=$(counter ha in-hit)
check "ping to an attached link" pings 20
rose "admitted" ha in-hit "$admitted" 20
if [ $(($(entered) - before)) -lt 10 ]; then ok "ahead of the stack"; else bad "behind the stack"; fi
check "TCP to an attached link" carries
at ha mtunctl flow flush mtun0 in
admitted=$(counter ha in-hit)
at a ping -6 -n -q -c 2 -i 0.05 -W 1 $B >/dev/null 2>&1
if [ "$(counter ha in-hit)" = "$admitted" ]; then
    ok "what is not admitted goes on"
else
    bad "admitted without a decision"
fi
flows "$generation"
check "detach" at ha mtunctl detach mtun0 link up2
refused "nor that" "No such file" at ha mtunctl detach mtun0 link up2
before=$(entered)
check "ping after that" pings 20
if [ $(($(entered) - before)) -ge 20 ]; then ok "by the stack again"; else bad "past the stack"; fi
ip link add gone netns mr type dummy
at mr ip link set gone up
check "attach to a link that goes" at mr mtunctl attach mtun0 link gone
check "it goes" at mr timeout 10 ip link del gone
ip link add gone netns mr type dummy
check "attach to one that stays when the device goes" at mr mtunctl attach mtun0 link gone

# A lease: what nobody vouches for holds no longer.
check "a lease" at mr mtunctl device mtun0 lease 600000
check "while it is held" pings 3
over=$(counter mr up-lease)
check "a lease given up" at mr mtunctl device mtun0 lease 0
if pings 1 -W 1; then bad "used without a lease"; else ok "nothing is used without a lease"; fi
rose "it goes up, counted" mr up-lease "$over" 1
flows "$generation"
at mr mtunctl device mtun0 lease 600000
check "held again" pings 3
ip netns exec mr mtunctl answer mtun0 path 1 generation "$generation" >/tmp/answer.mr 2>&1 &
listener_mr=$!
eventually 60 grep -q listening /tmp/answer.mr
kill $listener_mr
wait $listener_mr 2>/dev/null
if pings 1 -W 1; then bad "used without its daemon"; else ok "it ends with the socket that listens"; fi

# The device in one namespace, its uplinks in another.
check "moving the device away from its uplinks" at ha ip link set mtun0 netns b
check "it goes with the namespace of its uplinks or by hand" at b ip link del mtun0

# Devices come and go with all they hold, and leave nothing behind.
at mr ip link del mtun0
kept() { # octets of the allocators that nobody can take back
    awk '/^(SUnreclaim|Percpu):/ { sum += $2 } END { print sum * 1024 }' /proc/meminfo
}
come_and_go() { # come_and_go TIMES
    for _ in $(seq "$1"); do
        everything || return 1
        at mr mtunctl fill mtun0 path 1 generation 1 count 1000 >/dev/null
        at mr mtunctl attach mtun0 link up1
        at a ping -6 -n -q -c 1 -W 5 $B >/dev/null
        no_tunnel
    done
}
check "devices come and go" come_and_go 5
settled=$(kept)
check "and again" come_and_go 20
less_kept() { [ "$(kept)" -le $((settled + 1048576)) ]; }
check "nothing is kept of them" eventually 60 less_kept
echo "note $settled octets kept before, $(kept) after 20 times two devices and 1000 flows"

# Unload while packets flow.
check "from the beginning" everything
check "ping from the beginning" pings 3
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
