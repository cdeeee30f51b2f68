// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fast path at the tunnel interface.
 *
 *   mtun_out, tc egress of the tunnel interface:   flow -> path -> wrap -> uplink
 *   mtun_in,  tc ingress of an uplink:             flow -> path -> same ends? -> unwrap -> tunnel
 *
 * What the daemon decided for a flow's packet is done again for the next ones; no rule is looked
 * at here. Whatever is not exactly such a packet goes on as if there were no program: out of the
 * tunnel interface to the daemon, or to its packet socket. A packet that comes is unwrapped only if
 * it came between the very addresses by which the daemon admitted the flow's last one.
 *
 * Built by `clang -O2 -g -target bpf -mcpu=v3`; the object is checked in beside it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "mtun.bpf.h"

#define EALREADY 114
#define OUTER ((int)sizeof(struct ipv6hdr))
#define GROW_ALWAYS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/* Octets of link header before a packet that leaves the tunnel interface: none on a TUN. */
const volatile __u32 mtun_tunnel_header = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct mtun_flow_key);
	__type(value, struct mtun_flow);
} mtun_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct mtun_path);
} mtun_paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mtun_config);
} mtun_config SEC(".maps");

/* The ingress of packets received on an interface that rules name. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} mtun_doors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MTUN_OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} mtun_outcomes SEC(".maps");

/* A packet at one moment: every change of it makes a new one. */
struct view {
	void *data;
	void *end;
};

static __always_inline struct view view(struct __sk_buff *skb)
{
	struct view it = { (void *)(long)skb->data, (void *)(long)skb->data_end };

	/* Pointers to the verifier, so the compiler may not cut and join them as numbers. */
	asm volatile("" : "+r"(it.data), "+r"(it.end));
	return it;
}

static __always_inline int ends(enum mtun_outcome outcome, int action)
{
	__u32 index = outcome;
	__u64 *count = bpf_map_lookup_elem(&mtun_outcomes, &index);

	if (count)
		(*count)++;
	return action;
}

static __always_inline int left(enum mtun_outcome outcome)
{
	return ends(outcome, TC_ACT_UNSPEC);
}

static __always_inline struct mtun_config *configuration(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&mtun_config, &zero);
}

/* Ports or more behind the headers, within the part of the packet that can be read directly. */
static __always_inline struct view readable(struct __sk_buff *skb, __u32 octets)
{
	struct view it = view(skb);

	if (it.data + octets > it.end && octets <= skb->len) {
		/* If that fails the packet is as short as before, and is seen to be. */
		bpf_skb_pull_data(skb, octets);
		it = view(skb);
	}
	return it;
}

/* The traffic class stands across the first two octets, ECN in bits 4 and 5 of the second. */
static __always_inline __u8 ecn(const struct ipv6hdr *ip)
{
	return ((const __u8 *)ip)[1] >> 4 & 3;
}

static __always_inline __u8 dscp(const struct ipv6hdr *ip)
{
	return ip->priority << 2 | ((const __u8 *)ip)[1] >> 6;
}

static __always_inline int is_plain(const struct ipv6hdr *ip)
{
	return ip->version == 6 && (ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP);
}

static __always_inline int same_address(const __u8 *a, const struct in6_addr *b)
{
	const __u32 *left = (const __u32 *)a;

	return left[0] == b->s6_addr32[0] && left[1] == b->s6_addr32[1] &&
	       left[2] == b->s6_addr32[2] && left[3] == b->s6_addr32[3];
}

/* What a packet is in packets and octets as the other end sees them. */
struct load {
	__u32 longest;			/* octets of the longest of them */
	__u32 packets;
	__u32 octets;
};

/* `upper` is what stands behind the inner header; 0 if it cannot be told. */
static __always_inline int load_of(struct __sk_buff *skb, const struct ipv6hdr *ip, void *upper,
				   void *end, struct load *load)
{
	__u32 total = sizeof(*ip) + bpf_ntohs(ip->payload_len), headers = sizeof(*ip);
	__u32 size = skb->gso_size;

	load->longest = total;
	load->packets = 1;
	load->octets = total;
	if (!size)
		return 1;
	if (ip->nexthdr == IPPROTO_TCP) {
		struct tcphdr *tcp = upper;

		if ((void *)(tcp + 1) > end)
			return 0;
		headers += tcp->doff * 4;
	} else {
		headers += sizeof(struct udphdr);
	}
	if (total <= headers + size) {
		return 1;
	}
	load->longest = headers + size;
	load->packets = (total - headers + size - 1) / size;
	load->octets = total + (load->packets - 1) * headers;
	return 1;
}

static __always_inline void count(struct mtun_flow *flow, const struct load *load, __u64 now)
{
	flow->seen_ns = now;
	__sync_fetch_and_add(&flow->packets, load->packets);
	__sync_fetch_and_add(&flow->octets, load->octets);
}

/* Whether a remembered decision still holds; says why not. */
static __always_inline int holds(const struct mtun_config *config, const struct mtun_flow *flow,
				 const struct mtun_path *path, __u64 now)
{
	if (now > config->lease_ns)
		return MTUN_NO_LEASE;
	if (flow->epoch != config->epoch || flow->generation != path->generation ||
	    path->form != MTUN_FORM_TUNNEL)
		return MTUN_STALE;
	if (flow->lasts_ns && now > flow->seen_ns && now - flow->seen_ns > flow->lasts_ns)
		return MTUN_SILENT;
	return MTUN_SENT;
}

SEC("classifier")
int mtun_out(struct __sk_buff *skb)
{
	__u32 link = mtun_tunnel_header;
	struct mtun_config *config = configuration();
	struct mtun_flow_key key = {};
	struct mtun_flow *flow;
	struct mtun_path *path;
	struct ipv6hdr *ip;
	struct load load;
	struct view it;
	__be32 *ports;
	__u32 first, octets, outer;
	__u64 now;
	long failed;
	int why;

	if (!config || skb->protocol != bpf_htons(ETH_P_IPV6))
		return left(MTUN_NOT_PLAIN);
	it = readable(skb, link + sizeof(*ip) + sizeof(struct udphdr));
	ip = it.data + link;
	ports = (__be32 *)(ip + 1);
	if ((void *)(ports + 2) > it.end || !is_plain(ip) || !ip->hop_limit)
		return left(MTUN_NOT_PLAIN);
	if (skb->gso_size && ip->nexthdr == IPPROTO_TCP) {
		it = readable(skb, link + sizeof(*ip) + sizeof(struct tcphdr));
		ip = it.data + link;
		ports = (__be32 *)(ip + 1);
		if ((void *)(ports + 2) > it.end)
			return left(MTUN_NOT_PLAIN);
	}
	octets = bpf_ntohs(ip->payload_len);
	if (link + sizeof(*ip) + octets != skb->len || !load_of(skb, ip, ports, it.end, &load))
		return left(MTUN_NOT_PLAIN);

	__builtin_memcpy(key.source, &ip->saddr, 16);
	__builtin_memcpy(key.destination, &ip->daddr, 16);
	__builtin_memcpy(&key.source_port, ports, 4);
	key.protocol = ip->nexthdr;
	key.direction = MTUN_OUT;
	key.dscp = dscp(ip);
	if (skb->ingress_ifindex) {
		__u32 from = skb->ingress_ifindex, *door = 0;

		if (config->doors)
			door = bpf_map_lookup_elem(&mtun_doors, &from);
		key.ingress = door ? *door : 1;
	}
	flow = bpf_map_lookup_elem(&mtun_flows, &key);
	if (!flow)
		return left(MTUN_UNKNOWN);
	path = bpf_map_lookup_elem(&mtun_paths, &flow->path);
	if (!path)
		return left(MTUN_STALE);
	now = bpf_ktime_get_coarse_ns();
	why = holds(config, flow, path, now);
	if (why != MTUN_SENT)
		return left(why);
	if (load.longest > path->room)
		return left(MTUN_TOO_BIG);
	first = bpf_ntohl(*(__be32 *)ip);
	outer = path->interface;

	/* What came out of a tunnel still says that it is in one: it is segmented as such anyway. */
	failed = bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC,
				     GROW_ALWAYS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
	if (failed == -EALREADY) {
		if (skb->gso_size && skb->ingress_ifindex != config->tunnel)
			return left(MTUN_NESTED);
		failed = bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, GROW_ALWAYS);
	}
	if (failed)
		return left(MTUN_REFUSED);
	/* The kernel takes a link header off what is redirected, so there has to be one. */
	if (!link && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	it = view(skb);
	ip = it.data + ETH_HLEN;
	if ((void *)(ip + 1) > it.end)
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	*(__be32 *)ip = bpf_htonl(first & 0xfff00000) | flow->label;
	ip->payload_len = bpf_htons(octets + sizeof(*ip));
	ip->nexthdr = IPPROTO_IPV6;
	ip->hop_limit = path->hop_limit;
	__builtin_memcpy(&ip->saddr, path->source, 16);
	__builtin_memcpy(&ip->daddr, path->destination, 16);
	skb->mark = path->mark;
	count(flow, &load, now);
	/*
	 * No next hop: the kernel looks the outer addresses up and gives the packet that route. With
	 * the route of the inner packet still on it, one that waits for a neighbour would leave
	 * without a link header.
	 */
	return ends(MTUN_SENT, bpf_redirect_neigh(outer, 0, 0, 0));
}

SEC("classifier")
int mtun_in(struct __sk_buff *skb)
{
	struct mtun_config *config = configuration();
	struct mtun_flow_key key = {};
	struct ipv6hdr *outer, *ip;
	struct mtun_flow *flow;
	struct mtun_path *path;
	struct load load;
	struct view it;
	__be16 *ports;
	__u8 marked, second;
	__u32 octets;
	__u64 now;
	int why;

	/* Everything that arrives on the uplink comes by here: what is no tunnel packet of two plain
	 * headers is not counted.
	 */
	if (!config || skb->protocol != bpf_htons(ETH_P_IPV6) || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	it = readable(skb, ETH_HLEN + sizeof(*outer));
	outer = it.data + ETH_HLEN;
	if ((void *)(outer + 1) > it.end || outer->version != 6 || outer->nexthdr != IPPROTO_IPV6)
		return TC_ACT_UNSPEC;
	it = readable(skb, ETH_HLEN + 2 * sizeof(*ip) + sizeof(struct udphdr));
	outer = it.data + ETH_HLEN;
	ip = outer + 1;
	ports = (__be16 *)(ip + 1);
	if ((void *)(ports + 4) > it.end || !is_plain(ip))
		return left(MTUN_NOT_PLAIN);
	if (skb->gso_size && ip->nexthdr == IPPROTO_TCP) {
		it = readable(skb, ETH_HLEN + 2 * sizeof(*ip) + sizeof(struct tcphdr));
		outer = it.data + ETH_HLEN;
		ip = outer + 1;
		ports = (__be16 *)(ip + 1);
		if ((void *)(ports + 4) > it.end)
			return left(MTUN_NOT_PLAIN);
	}
	octets = bpf_ntohs(outer->payload_len);
	if (ETH_HLEN + sizeof(*outer) + octets != skb->len ||
	    sizeof(*ip) + bpf_ntohs(ip->payload_len) != octets ||
	    !load_of(skb, ip, ports, it.end, &load))
		return left(MTUN_NOT_PLAIN);

	__builtin_memcpy(key.source, &ip->daddr, 16);
	__builtin_memcpy(key.destination, &ip->saddr, 16);
	key.source_port = ports[1];
	key.destination_port = ports[0];
	key.protocol = ip->nexthdr;
	key.direction = MTUN_IN;
	flow = bpf_map_lookup_elem(&mtun_flows, &key);
	if (!flow)
		return left(MTUN_UNKNOWN);
	path = bpf_map_lookup_elem(&mtun_paths, &flow->path);
	if (!path)
		return left(MTUN_STALE);
	now = bpf_ktime_get_coarse_ns();
	why = holds(config, flow, path, now);
	if (why != MTUN_SENT)
		return left(why);
	if (!same_address(path->destination, &outer->saddr) ||
	    !same_address(path->source, &outer->daddr))
		return left(MTUN_OTHER_ENDS);

	/* RFC 6040 section 4.2: what the inner ECN field becomes. */
	marked = ecn(ip);
	if (ecn(outer) == 3) {
		if (!marked)
			return left(MTUN_CONGESTION);
		marked = 3;
	} else if (ecn(outer) == 1 && marked == 2) {
		marked = 1;
	}
	second = ((__u8 *)ip)[1];
	if (bpf_skb_adjust_room(skb, -OUTER, BPF_ADJ_ROOM_MAC, GROW_ALWAYS))
		return left(MTUN_REFUSED);
	if (marked != (second >> 4 & 3)) {
		second = (second & 0xcf) | marked << 4;
		if (bpf_skb_store_bytes(skb, ETH_HLEN + 1, &second, 1, BPF_F_RECOMPUTE_CSUM))
			return ends(MTUN_BROKEN, TC_ACT_SHOT);
	}
	count(flow, &load, now);
	return ends(MTUN_RECEIVED, bpf_redirect(config->tunnel, BPF_F_INGRESS));
}

char mtun_license[] SEC("license") = "GPL";
