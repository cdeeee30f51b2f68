// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fast path at the tunnel interface, and the shortcut past it.
 *
 *   mtun_out,    tc egress of the tunnel interface:   flow -> path -> wrap -> uplink
 *   mtun_in,     tc ingress of an uplink:             flow -> path -> same ends? -> unwrap -> tunnel
 *   mtun_front,  tc ingress of a network behind us:   passed? -> as mtun_out, without the kernel's routes
 *   mtun_behind, tc egress of a network behind us:    notes what has passed
 *
 * and from one tunnel of an agent into another mtun_in by itself: passed? -> other outer header -> uplink
 *
 * What the daemon decided for a flow's packet is done again for the next ones; no rule is looked
 * at here. Whatever is not exactly such a packet goes on as if there were no program: out of the
 * tunnel interface to the daemon, or to its packet socket. A packet that comes is unwrapped only if
 * it came between the very addresses by which the daemon admitted the flow's last one.
 *
 * What goes straight to a correspondent, or to a mobile, is not wrapped: its home address goes into
 * an extension header of its own and comes back out of it. The ends are sockets of these machines,
 * so there is no shortcut for that.
 *
 * The shortcut remembers one thing more: that the kernel itself has forwarded a packet of the flow
 * lately, through its routes and its firewall, from or to which interface, and the link header with
 * which it went on. Only programs behind the forward hooks note that (mtun_out what left, with the
 * next hop looked up by the outer addresses; mtun_behind what came, with the header it already
 * has), so what a firewall drops is never noted. It holds for MTUN_PASSED_NS, then a packet goes
 * the normal way again; a new round, or a new writing of the path, ends it at once. What has to be
 * seen by the kernel goes the normal way always: packets that open or close a connection, and those
 * at the end of their hop limit or too large.
 *
 * A packet from one mobile to another passes the forward hooks from the tunnel interface to the tunnel
 * interface. mtun_out notes that of both its flows, and mtun_in then exchanges the one outer header for
 * the other where it stands.
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
/* Younger than the headers that this is built with. */
#define FIB_LOOKUP_MARK (1U << 5)
#define FAMILY_IPV6 10
#define LEAST_MTU 1280
/* Octets of the extension header with a home address. */
#define STRAIGHT ((int)sizeof(struct straight))
/* FIN, SYN, RST. */
#define TCP_TURNS 7

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

/*
 * A Destination Options header with the Home Address option alone (RFC 6275 section 6.3), or a type 2
 * routing header (section 6.4).
 */
struct straight {
	__u8 next;
	__u8 units;
	__u8 kind[6];
	__u8 home_address[16];
};

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
	    path->form == MTUN_FORM_NONE)
		return MTUN_STALE;
	if (flow->lasts_ns && now > flow->seen_ns && now - flow->seen_ns > flow->lasts_ns)
		return MTUN_SILENT;
	return MTUN_SENT;
}

/*
 * The IPv6 header so many octets into the packet, with TCP or UDP right behind it, as much of that
 * as is looked at; 0 if it is none. `it` is what can be read then.
 */
static __always_inline struct ipv6hdr *plain(struct __sk_buff *skb, __u32 at, struct view *it)
{
	struct ipv6hdr *ip;

	*it = readable(skb, at + sizeof(*ip) + sizeof(struct udphdr));
	ip = it->data + at;
	if ((void *)(ip + 1) + sizeof(struct udphdr) > it->end || !is_plain(ip))
		return 0;
	if (ip->nexthdr == IPPROTO_TCP) {
		*it = readable(skb, at + sizeof(*ip) + sizeof(struct tcphdr));
		ip = it->data + at;
		if ((void *)(ip + 1) + sizeof(struct tcphdr) > it->end)
			return 0;
	}
	return ip;
}

/* Whether a packet opens or closes a connection. Behind plain() only. */
static __always_inline int turns(const struct ipv6hdr *ip, void *end)
{
	const __u8 *tcp = (const void *)(ip + 1);

	if (ip->nexthdr != IPPROTO_TCP)
		return 0;
	return (void *)(tcp + sizeof(struct tcphdr)) > end || tcp[13] & TCP_TURNS;
}

/* The key of packets that come. */
static __always_inline void key_in(struct mtun_flow_key *key, const struct ipv6hdr *ip,
				   const __be16 *ports)
{
	__builtin_memcpy(key->source, &ip->daddr, 16);
	__builtin_memcpy(key->destination, &ip->saddr, 16);
	key->source_port = ports[1];
	key->destination_port = ports[0];
	key->protocol = ip->nexthdr;
	key->direction = MTUN_IN;
}

/* The key of a packet of one mobile as the other one's, without what tells those that leave apart. */
static __always_inline void turn_round(struct mtun_flow_key *key, const struct mtun_flow_key *of,
				       __u8 direction)
{
	__builtin_memcpy(key->source, of->destination, 16);
	__builtin_memcpy(key->destination, of->source, 16);
	key->source_port = of->destination_port;
	key->destination_port = of->source_port;
	key->protocol = of->protocol;
	key->direction = direction;
	key->dscp = 0;
	key->ingress = 0;
}

/* Whether what passed lately passed so: by this interface, under this round. */
static __always_inline int passed(const struct mtun_config *config, const struct mtun_flow *flow,
				  __u32 front, __u64 now, __u64 within)
{
	__u64 at = flow->passed_ns;

	/* Another processor's clock may be a little ahead. */
	return at && (now < at || now - at < within) && flow->round == config->round &&
	       flow->front == front;
}

/* Whether the flow may take the shortcut at all. A firewall should have seen TCP both ways. */
static __always_inline int is_short(const struct mtun_config *config, const struct mtun_flow *flow,
				    __u8 protocol)
{
	if (protocol == IPPROTO_UDP)
		return config->shortcut != MTUN_SHORTCUT_NONE;
	return config->shortcut == MTUN_SHORTCUT_ALL && flow->both;
}

/* A packet that leaves, and what is remembered of it. */
struct leaving {
	struct mtun_flow *flow;
	struct mtun_path *path;
	struct mtun_flow_key key;
	struct load load;
	__u64 now;
	__u32 first;			/* version, class and label of the inner header */
	__u32 octets;			/* behind the inner header */
	__u8 hop_limit;
	__u8 turns;
};

/* The ingress of packets from an interface. */
static __always_inline __u8 ingress(const struct mtun_config *config, __u32 from)
{
	__u32 *door;

	if (!config->doors)
		return 1;
	if (from == config->door)
		return config->door_ingress;
	door = config->doors > 1 ? bpf_map_lookup_elem(&mtun_doors, &from) : 0;
	return door ? *door : 1;
}

/* MTUN_SENT if the packet is to be sent as the flow's last one; else why not. */
static __always_inline int leaving(struct __sk_buff *skb, const struct mtun_config *config,
				   __u32 link, __u32 from, struct leaving *leaving)
{
	struct mtun_flow_key *key = &leaving->key;
	struct ipv6hdr *ip;
	struct view it;
	int why;

	ip = plain(skb, link, &it);
	if (!ip || !ip->hop_limit)
		return MTUN_NOT_PLAIN;
	leaving->octets = bpf_ntohs(ip->payload_len);
	if (link + sizeof(*ip) + leaving->octets != skb->len ||
	    !load_of(skb, ip, ip + 1, it.end, &leaving->load))
		return MTUN_NOT_PLAIN;
	leaving->first = bpf_ntohl(*(__be32 *)ip);
	leaving->hop_limit = ip->hop_limit;
	leaving->turns = turns(ip, it.end);

	__builtin_memcpy(key->source, &ip->saddr, 16);
	__builtin_memcpy(key->destination, &ip->daddr, 16);
	__builtin_memcpy(&key->source_port, ip + 1, 4);
	key->protocol = ip->nexthdr;
	key->direction = MTUN_OUT;
	key->dscp = dscp(ip);
	key->ingress = from ? ingress(config, from) : 0;
	leaving->flow = bpf_map_lookup_elem(&mtun_flows, key);
	if (!leaving->flow)
		return MTUN_UNKNOWN;
	leaving->path = bpf_map_lookup_elem(&mtun_paths, &leaving->flow->path);
	if (!leaving->path)
		return MTUN_STALE;
	leaving->now = bpf_ktime_get_coarse_ns();
	why = holds(config, leaving->flow, leaving->path, leaving->now);
	if (why != MTUN_SENT)
		return why;
	return leaving->load.longest > leaving->path->room ? MTUN_TOO_BIG : MTUN_SENT;
}

/*
 * Notes of TCP that packets of both directions have passed, as soon as they have. The way back may
 * have been written anew since it was noted last.
 */
static __always_inline void pass_both(struct leaving *leaving)
{
	struct mtun_flow_key key = leaving->key;
	struct mtun_flow *back;

	if (key.protocol != IPPROTO_TCP)
		return;
	key.direction = MTUN_IN;
	key.dscp = 0;
	key.ingress = 0;
	back = bpf_map_lookup_elem(&mtun_flows, &key);
	if (back && back->passed_ns) {
		leaving->flow->both = 1;
		back->both = 1;
	}
}

/*
 * Notes that a packet from `front` has passed the forward hooks, and how the next ones can leave
 * without them: the link header of the route that its outer addresses have.
 */
static __always_inline void pass_out(struct __sk_buff *skb, const struct mtun_config *config,
				     struct leaving *leaving, __u32 front)
{
	struct mtun_flow *flow = leaving->flow;
	struct mtun_path *path = leaving->path;
	struct bpf_fib_lookup way = {};
	__u32 turn = path->turn, flags = 0, mtu = 0;
	__be16 type = bpf_htons(ETH_P_IPV6);

	/* Not for every packet of those that always go this way. */
	if (flow->turn == turn &&
	    passed(config, flow, front, leaving->now, MTUN_PASSED_NS / 2)) {
		if (!flow->both)
			pass_both(leaving);
		return;
	}
	flow->passed_ns = 0;
	/*
	 * As for a packet that is forwarded from there: an uplink of a mobile router forwards nothing
	 * by itself, so the kernel would not look for anything that leaves it. Nor does the tunnel
	 * interface, but what comes out of it and goes into it again does so at an agent, whose uplink does.
	 */
	way.family = FAMILY_IPV6;
	way.ifindex = front == config->tunnel ? path->interface : front;
	way.l4_protocol = IPPROTO_IPV6;
	way.tot_len = LEAST_MTU;
	__builtin_memcpy(way.ipv6_src, path->source, 16);
	__builtin_memcpy(way.ipv6_dst, path->destination, 16);
	if (path->mark) {
		__builtin_memcpy(way.smac, &path->mark, 4);
		flags = FIB_LOOKUP_MARK;
	}
	if (bpf_fib_lookup(skb, &way, sizeof(way), flags) != BPF_FIB_LKUP_RET_SUCCESS ||
	    way.ifindex != path->interface || bpf_check_mtu(skb, 0, &mtu, 0, 0) < 0 || mtu > 0xffff)
		return;
	__builtin_memcpy(flow->link, way.dmac, 6);
	__builtin_memcpy(flow->link + 6, way.smac, 6);
	__builtin_memcpy(flow->link + 12, &type, 2);
	flow->fits = mtu;
	flow->round = config->round;
	flow->turn = turn;
	flow->front = front;
	barrier();
	flow->passed_ns = leaving->now;
	pass_both(leaving);
}

/* Notes that what came out of the tunnel as this did goes into it again. Behind pass_out() only. */
static __always_inline void pass_through(const struct mtun_config *config,
					 const struct leaving *leaving)
{
	struct mtun_flow_key key;
	struct mtun_flow *came;

	turn_round(&key, &leaving->key, MTUN_IN);
	came = bpf_map_lookup_elem(&mtun_flows, &key);
	if (!came)
		return;
	came->passed_ns = 0;
	came->round = config->round;
	came->front = config->tunnel;
	barrier();
	came->passed_ns = leaving->now;
}

/* Makes room for the outer header behind the link header; says why there is none. */
static __always_inline int widen(struct __sk_buff *skb, int nested)
{
	/* What came out of a tunnel still says that it is in one: it is segmented as such anyway. */
	long failed = bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC,
					  GROW_ALWAYS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);

	if (failed == -EALREADY) {
		if (skb->gso_size && !nested)
			return MTUN_NESTED;
		failed = bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, GROW_ALWAYS);
	}
	return failed ? MTUN_REFUSED : MTUN_SENT;
}

static __always_inline void wrap(struct ipv6hdr *ip, const struct leaving *leaving)
{
	const struct mtun_path *path = leaving->path;

	*(__be32 *)ip = bpf_htonl(leaving->first & 0xfff00000) | leaving->flow->label;
	ip->payload_len = bpf_htons(leaving->octets + sizeof(*ip));
	ip->nexthdr = IPPROTO_IPV6;
	ip->hop_limit = path->hop_limit;
	__builtin_memcpy(&ip->saddr, path->source, 16);
	__builtin_memcpy(&ip->daddr, path->destination, 16);
}

/* Whether it is such a header as is written here; of a routing header four octets are reserved. */
static __always_inline int is_straight(const struct straight *it, int is_option)
{
	if (it->units != 2)
		return 0;
	if (!is_option)
		return it->kind[0] == 2 && it->kind[1] == 1;
	return it->kind[0] == 1 && it->kind[1] == 2 && !it->kind[2] && !it->kind[3] &&
	       it->kind[4] == 0xc9 && it->kind[5] == 16;
}

/*
 * Sends a packet straight. It is no tunnel: hop limit, class and label are the sender's, and so is the
 * upper layer's checksum, which is that of the home addresses.
 */
static __always_inline int straighten(struct __sk_buff *skb, __u32 link,
				      const struct leaving *leaving)
{
	const struct mtun_path *path = leaving->path;
	int is_option = path->form == MTUN_FORM_HOME_ADDRESS;
	struct straight *header;
	struct ipv6hdr *ip;
	struct view it;

	if (bpf_skb_adjust_room(skb, STRAIGHT, BPF_ADJ_ROOM_NET, GROW_ALWAYS))
		return left(MTUN_REFUSED);
	if (!link && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	it = view(skb);
	ip = it.data + ETH_HLEN;
	header = (void *)(ip + 1);
	if ((void *)(header + 1) > it.end)
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	header->next = leaving->key.protocol;
	header->units = 2;
	__builtin_memset(header->kind, 0, sizeof(header->kind));
	if (is_option) {
		header->kind[0] = 1;
		header->kind[1] = 2;
		header->kind[4] = 0xc9;
		header->kind[5] = 16;
		__builtin_memcpy(header->home_address, leaving->key.source, 16);
	} else {
		header->kind[0] = 2;
		header->kind[1] = 1;
		__builtin_memcpy(header->home_address, leaving->key.destination, 16);
	}
	ip->nexthdr = is_option ? IPPROTO_DSTOPTS : IPPROTO_ROUTING;
	ip->payload_len = bpf_htons(leaving->octets + STRAIGHT);
	__builtin_memcpy(&ip->saddr, path->source, 16);
	__builtin_memcpy(&ip->daddr, path->destination, 16);
	skb->mark = path->mark;
	count(leaving->flow, &leaving->load, leaving->now);
	return ends(MTUN_SENT, bpf_redirect_neigh(path->interface, 0, 0, 0));
}

SEC("classifier")
int mtun_out(struct __sk_buff *skb)
{
	__u32 link = mtun_tunnel_header, from = skb->ingress_ifindex, outer;
	struct mtun_config *config = configuration();
	struct leaving leaves;
	struct ipv6hdr *ip;
	struct view it;
	int why;

	if (!config || skb->protocol != bpf_htons(ETH_P_IPV6))
		return left(MTUN_NOT_PLAIN);
	why = leaving(skb, config, link, from, &leaves);
	if (why != MTUN_SENT)
		return left(why);
	if (leaves.path->form != MTUN_FORM_TUNNEL)
		return straighten(skb, link, &leaves);
	outer = leaves.path->interface;
	if (config->shortcut && from) {
		pass_out(skb, config, &leaves, from);
		if (from == config->tunnel && leaves.flow->passed_ns)
			pass_through(config, &leaves);
	}
	why = widen(skb, from == config->tunnel);
	if (why != MTUN_SENT)
		return left(why);
	/* The kernel takes a link header off what is redirected, so there has to be one. */
	if (!link && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	it = view(skb);
	ip = it.data + ETH_HLEN;
	if ((void *)(ip + 1) > it.end)
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	wrap(ip, &leaves);
	skb->mark = leaves.path->mark;
	count(leaves.flow, &leaves.load, leaves.now);
	/*
	 * No next hop: the kernel looks the outer addresses up and gives the packet that route. With
	 * the route of the inner packet still on it, one that waits for a neighbour would leave
	 * without a link header.
	 */
	return ends(MTUN_SENT, bpf_redirect_neigh(outer, 0, 0, 0));
}

SEC("classifier")
int mtun_front(struct __sk_buff *skb)
{
	struct mtun_config *config = configuration();
	struct leaving leaves;
	struct ipv6hdr *ip, *inner;
	struct view it;

	/* What is not for the shortcut is counted where it comes out, if that is the tunnel. */
	if (!config || !config->shortcut || skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (leaving(skb, config, ETH_HLEN, skb->ifindex, &leaves) != MTUN_SENT)
		return TC_ACT_UNSPEC;
	if (leaves.hop_limit < 2 || leaves.turns || leaves.load.longest > leaves.flow->fits ||
	    leaves.path->form != MTUN_FORM_TUNNEL ||
	    !is_short(config, leaves.flow, leaves.key.protocol) ||
	    !passed(config, leaves.flow, skb->ifindex, leaves.now, MTUN_PASSED_NS) ||
	    leaves.flow->turn != leaves.path->turn)
		return TC_ACT_UNSPEC;
	if (widen(skb, 0) != MTUN_SENT)
		return TC_ACT_UNSPEC;
	it = view(skb);
	ip = it.data + ETH_HLEN;
	inner = ip + 1;
	if ((void *)(inner + 1) > it.end)
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	__builtin_memcpy(it.data, leaves.flow->link, ETH_HLEN);
	wrap(ip, &leaves);
	/* As the kernel does when it forwards. */
	inner->hop_limit = leaves.hop_limit - 1;
	skb->mark = leaves.path->mark;
	count(leaves.flow, &leaves.load, leaves.now);
	return ends(MTUN_SHORTCUT_SENT, bpf_redirect(leaves.path->interface, 0));
}

/* A packet that comes, and what is remembered of it. */
struct arriving {
	struct mtun_flow *flow;
	struct mtun_flow_key key;
	struct load load;
	__u64 now;
};

/* MTUN_RECEIVED if it came as the flow's last one did, between the same ends; else why it is left. */
static __always_inline int arriving(const struct mtun_config *config, const struct ipv6hdr *outer,
				    __u8 form, struct arriving *arriving)
{
	struct mtun_path *path;
	int why;

	arriving->flow = bpf_map_lookup_elem(&mtun_flows, &arriving->key);
	if (!arriving->flow)
		return MTUN_UNKNOWN;
	path = bpf_map_lookup_elem(&mtun_paths, &arriving->flow->path);
	if (!path)
		return MTUN_STALE;
	arriving->now = bpf_ktime_get_coarse_ns();
	why = holds(config, arriving->flow, path, arriving->now);
	if (why != MTUN_SENT)
		return why;
	if (path->form != form || !same_address(path->destination, &outer->saddr) ||
	    !same_address(path->source, &outer->daddr))
		return MTUN_OTHER_ENDS;
	return MTUN_RECEIVED;
}

/*
 * Takes a packet that came straight, by a Home Address option or by a type 2 routing header. One that
 * is laid out otherwise, or that is no TCP or UDP, is not counted: it may be anybody's.
 */
static __always_inline int unbend(struct __sk_buff *skb, const struct mtun_config *config)
{
	const __u32 at = ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct straight);
	struct view it = readable(skb, at + sizeof(struct udphdr));
	const struct straight *header;
	struct arriving comes = {};
	const struct ipv6hdr *outer;
	struct ipv6hdr ip;
	__u32 octets;
	int is_option, why;

	outer = it.data + ETH_HLEN;
	header = (const void *)(outer + 1);
	if ((void *)(header + 1) + sizeof(struct udphdr) > it.end ||
	    (header->next != IPPROTO_TCP && header->next != IPPROTO_UDP))
		return TC_ACT_UNSPEC;
	if (header->next == IPPROTO_TCP) {
		it = readable(skb, at + sizeof(struct tcphdr));
		outer = it.data + ETH_HLEN;
		header = (const void *)(outer + 1);
		if ((void *)(header + 1) + sizeof(struct tcphdr) > it.end)
			return TC_ACT_UNSPEC;
	}
	is_option = outer->nexthdr == IPPROTO_DSTOPTS;
	if (!is_straight(header, is_option))
		return TC_ACT_UNSPEC;
	octets = bpf_ntohs(outer->payload_len);
	if (ETH_HLEN + sizeof(*outer) + octets != skb->len || octets < sizeof(*header))
		return left(MTUN_NOT_PLAIN);

	/* The header as its sender's upper layers made it. */
	ip = *outer;
	ip.nexthdr = header->next;
	ip.payload_len = bpf_htons(octets - sizeof(*header));
	if (is_option)
		__builtin_memcpy(&ip.saddr, header->home_address, 16);
	else
		__builtin_memcpy(&ip.daddr, header->home_address, 16);
	if (!load_of(skb, &ip, (void *)(header + 1), it.end, &comes.load))
		return left(MTUN_NOT_PLAIN);
	key_in(&comes.key, &ip, (const void *)(header + 1));
	why = arriving(config, outer, is_option ? MTUN_FORM_ROUTING_HEADER : MTUN_FORM_HOME_ADDRESS,
		       &comes);
	if (why != MTUN_RECEIVED)
		return left(why);
	if (bpf_skb_adjust_room(skb, -STRAIGHT, BPF_ADJ_ROOM_NET, GROW_ALWAYS))
		return left(MTUN_REFUSED);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		return ends(MTUN_BROKEN, TC_ACT_SHOT);
	count(comes.flow, &comes.load, comes.now);
	return ends(MTUN_RECEIVED, bpf_redirect(config->tunnel, BPF_F_INGRESS));
}

/*
 * Makes a packet of one tunnel one of another: its outer header becomes that of what the kernel has
 * forwarded from the tunnel interface into it. The path that it leaves by; 0 if it is left as it is.
 */
static __always_inline struct mtun_path *relay(struct __sk_buff *skb,
					       const struct mtun_config *config,
					       struct ipv6hdr *outer,
					       const struct arriving *comes, __u8 marked)
{
	struct ipv6hdr *ip = outer + 1;
	struct mtun_flow_key key;
	struct mtun_flow *flow;
	struct mtun_path *path;
	__u8 *second = (__u8 *)ip + 1;

	turn_round(&key, &comes->key, MTUN_OUT);
	key.dscp = dscp(ip);
	key.ingress = ingress(config, config->tunnel);
	flow = bpf_map_lookup_elem(&mtun_flows, &key);
	if (!flow)
		return 0;
	path = bpf_map_lookup_elem(&mtun_paths, &flow->path);
	if (!path || path->form != MTUN_FORM_TUNNEL || flow->turn != path->turn ||
	    holds(config, flow, path, comes->now) != MTUN_SENT ||
	    comes->load.longest > path->room || comes->load.longest > flow->fits ||
	    !is_short(config, flow, key.protocol) ||
	    !passed(config, flow, config->tunnel, comes->now, MTUN_PASSED_NS))
		return 0;
	*second = (*second & 0xcf) | marked << 4;
	ip->hop_limit--;
	*(__be32 *)outer = (*(__be32 *)ip & bpf_htonl(0xfff00000)) | flow->label;
	outer->hop_limit = path->hop_limit;
	__builtin_memcpy(&outer->saddr, path->source, 16);
	__builtin_memcpy(&outer->daddr, path->destination, 16);
	__builtin_memcpy((void *)outer - ETH_HLEN, flow->link, ETH_HLEN);
	skb->mark = path->mark;
	count(comes->flow, &comes->load, comes->now);
	count(flow, &comes->load, comes->now);
	return path;
}

SEC("classifier")
int mtun_in(struct __sk_buff *skb)
{
	struct mtun_config *config = configuration();
	struct arriving comes = {};
	struct ipv6hdr *outer, *ip;
	struct mtun_flow *flow;
	struct view it;
	__u8 marked, second;
	__u32 octets, front;
	int why, shortcut;

	/* Everything that arrives on the uplink comes by here: what is no tunnel packet of two plain
	 * headers is not counted. What is tagged belongs to the interface of that VLAN.
	 */
	if (!config || skb->protocol != bpf_htons(ETH_P_IPV6) || skb->pkt_type != PACKET_HOST ||
	    skb->vlan_present)
		return TC_ACT_UNSPEC;
	it = readable(skb, ETH_HLEN + sizeof(*outer));
	outer = it.data + ETH_HLEN;
	if ((void *)(outer + 1) > it.end || outer->version != 6)
		return TC_ACT_UNSPEC;
	if (outer->nexthdr == IPPROTO_DSTOPTS || outer->nexthdr == IPPROTO_ROUTING)
		return unbend(skb, config);
	if (outer->nexthdr != IPPROTO_IPV6)
		return TC_ACT_UNSPEC;
	ip = plain(skb, ETH_HLEN + sizeof(*outer), &it);
	if (!ip)
		return left(MTUN_NOT_PLAIN);
	outer = it.data + ETH_HLEN;
	octets = bpf_ntohs(outer->payload_len);
	if (ETH_HLEN + sizeof(*outer) + octets != skb->len ||
	    sizeof(*ip) + bpf_ntohs(ip->payload_len) != octets ||
	    !load_of(skb, ip, ip + 1, it.end, &comes.load))
		return left(MTUN_NOT_PLAIN);
	key_in(&comes.key, ip, (const void *)(ip + 1));
	why = arriving(config, outer, MTUN_FORM_TUNNEL, &comes);
	if (why != MTUN_RECEIVED)
		return left(why);
	flow = comes.flow;

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
	/* Once: meanwhile it may be noted that the flow's packets go elsewhere. */
	front = *(volatile __u32 *)&flow->front;
	shortcut = ip->hop_limit > 1 && !turns(ip, it.end) &&
		   is_short(config, flow, comes.key.protocol) &&
		   passed(config, flow, front, comes.now, MTUN_PASSED_NS);
	if (shortcut && front == config->tunnel) {
		struct mtun_path *path = relay(skb, config, outer, &comes, marked);

		if (path)
			return ends(MTUN_SHORTCUT_RELAYED, bpf_redirect(path->interface, 0));
		shortcut = 0;
	}
	shortcut = shortcut && comes.load.longest <= flow->fits;
	if (bpf_skb_adjust_room(skb, -OUTER, BPF_ADJ_ROOM_MAC, GROW_ALWAYS))
		return left(MTUN_REFUSED);
	if (shortcut) {
		it = view(skb);
		ip = it.data + ETH_HLEN;
		if ((void *)(ip + 1) > it.end)
			return ends(MTUN_BROKEN, TC_ACT_SHOT);
		__builtin_memcpy(it.data, flow->link, ETH_HLEN);
		((__u8 *)ip)[1] = (second & 0xcf) | marked << 4;
		ip->hop_limit--;
		count(flow, &comes.load, comes.now);
		return ends(MTUN_SHORTCUT_RECEIVED, bpf_redirect(front, 0));
	}
	if (marked != (second >> 4 & 3)) {
		second = (second & 0xcf) | marked << 4;
		if (bpf_skb_store_bytes(skb, ETH_HLEN + 1, &second, 1, BPF_F_RECOMPUTE_CSUM))
			return ends(MTUN_BROKEN, TC_ACT_SHOT);
	}
	count(flow, &comes.load, comes.now);
	return ends(MTUN_RECEIVED, bpf_redirect(config->tunnel, BPF_F_INGRESS));
}

SEC("classifier")
int mtun_behind(struct __sk_buff *skb)
{
	struct mtun_config *config = configuration();
	struct mtun_flow_key key = {};
	struct mtun_flow *flow;
	struct ipv6hdr *ip;
	struct view it;
	__u32 mtu = 0;
	__u64 now;

	if (!config || !config->shortcut || skb->ingress_ifindex != config->tunnel ||
	    skb->protocol != bpf_htons(ETH_P_IPV6) || skb->vlan_present)
		return TC_ACT_UNSPEC;
	ip = plain(skb, ETH_HLEN, &it);
	if (!ip)
		return TC_ACT_UNSPEC;
	key_in(&key, ip, (const void *)(ip + 1));
	flow = bpf_map_lookup_elem(&mtun_flows, &key);
	now = bpf_ktime_get_coarse_ns();
	if (!flow || passed(config, flow, skb->ifindex, now, MTUN_PASSED_NS / 2))
		return TC_ACT_UNSPEC;
	flow->passed_ns = 0;
	if (bpf_check_mtu(skb, 0, &mtu, 0, 0) < 0 || mtu > 0xffff ||
	    bpf_skb_load_bytes(skb, 0, flow->link, ETH_HLEN))
		return TC_ACT_UNSPEC;
	flow->fits = mtu;
	flow->round = config->round;
	flow->front = skb->ifindex;
	barrier();
	flow->passed_ns = now;
	return TC_ACT_UNSPEC;
}

char mtun_license[] SEC("license") = "GPL";
