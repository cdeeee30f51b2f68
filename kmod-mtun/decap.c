// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way in: is there a remembered decision that admits this packet by this path? Only then is
 * anything stripped.
 *
 * Protocol 41 has two handlers. The first, ahead of the kernel's other tunnels, takes what comes
 * between the outer addresses of one of our paths. The second, behind them, takes up what is
 * addressed to us and nobody's, so that user space may judge it.
 */
#include <linux/netfilter_ipv6.h>
#include <net/ip_tunnels.h>
#include <net/ip6_route.h>
#include <net/ip6_tunnel.h>
#include <net/ipv6.h>
#include <net/xfrm.h>

#include "mtun.h"

/* Receives an inner packet, which begins at skb->data, on the device. */
void mtun_decap_deliver(struct mtun_device *mtun, struct sk_buff *skb)
{
	skb->dev = mtun->dev;
	skb->protocol = htons(ETH_P_IPV6);
	skb_reset_mac_header(skb);
	skb_reset_network_header(skb);
	memset(skb->cb, 0, sizeof(skb->cb));
	skb_clear_hash_if_not_l4(skb);
	skb_set_queue_mapping(skb, 0);
	skb_scrub_packet(skb, !net_eq(mtun->net, dev_net(mtun->dev)));
	dev_sw_netstats_rx_add(mtun->dev, skb->len);
	gro_cells_receive(&mtun->cells, skb);
}

/* Counts a packet that a remembered decision let in. */
void mtun_decap_admitted(const struct mtun_decap_answer *answer, struct mtun_load load)
{
	struct pcpu_sw_netstats *stats = this_cpu_ptr(answer->path->stats);

	mtun_flow_touch(answer->flow, load);
	mtun_count(answer->path->mtun, MTUN_REASON_IN_HIT);
	u64_stats_update_begin(&stats->syncp);
	u64_stats_add(&stats->rx_packets, load.packets);
	u64_stats_add(&stats->rx_bytes, load.octets);
	u64_stats_update_end(&stats->syncp);
}

/* Asks all paths between two outer addresses. Under RCU. */
void mtun_decap_ask(struct mtun_net *mn, const struct in6_addr *local,
		    const struct in6_addr *remote, u8 encapsulation, const struct mtun_key *key,
		    struct mtun_decap_answer *answer)
{
	struct mtun_path_entry *entry = NULL;

	memset(answer, 0, sizeof(*answer));
	while ((entry = mtun_path_by_outer(mn, local, remote, entry))) {
		struct mtun_path *path = entry->path;
		struct mtun_flow_table *table;
		enum mtun_reason reason;
		struct mtun_flow *flow;

		if (entry->encapsulation != encapsulation)
			continue;
		table = rcu_dereference(path->mtun->table);
		if (!table)
			continue;
		flow = key ? mtun_flow_lookup(table, MTUN_DIRECTION_IN, key, path) : NULL;
		reason = mtun_flow_judge(flow);
		if (reason == MTUN_REASON_OUT_HIT)
			reason = MTUN_REASON_IN_HIT;
		/* A reason that tells more than "miss" is kept. */
		if (!answer->ours || reason == MTUN_REASON_IN_HIT ||
		    answer->reason == MTUN_REASON_MISS) {
			answer->path = path;
			answer->flow = flow;
			answer->reason = reason;
		}
		answer->ours = true;
		if (reason == MTUN_REASON_IN_HIT)
			return;
	}
}

/* Up with the outer header, which the stack has passed already. */
void mtun_decap_up(struct mtun_path *path, struct sk_buff *skb, enum mtun_reason reason)
{
	skb_push(skb, skb->data - skb_network_header(skb));
	mtun_miss_enqueue(path->mtun, skb, MTUN_DIRECTION_IN, reason, path->id);
}

void mtun_decap_drop(struct mtun_device *mtun, struct sk_buff *skb, enum mtun_reason reason)
{
	mtun_count(mtun, reason);
	DEV_STATS_INC(mtun->dev, rx_dropped);
	kfree_skb(skb);
}

/* Writes the congestion that the outer header reports into the inner one. */
static int mtun_decap_congestion(struct sk_buff *skb, u8 outer, u8 inner)
{
	int ecn = mtun_header_ecn(outer, inner);

	if (ecn < 0)
		return MTUN_REASON_CONGESTION;
	if (ecn == (inner & 3))
		return 0;
	if (skb_ensure_writable(skb, MTUN_IPV6_HEADER))
		return MTUN_REASON_NO_MEMORY;
	/* The traffic class straddles two octets; its lowest bits are bits 4 and 5 of the second. */
	skb->data[1] = (skb->data[1] & 0xcf) | ecn << 4;
	return 0;
}

/*
 * A superpacket that is itself a tunnel packet stays one: taking off one tunnel level has taken
 * off the mark by which it will be segmented. The inner offsets are those of the innermost.
 */
static void mtun_decap_nested(struct sk_buff *skb, const struct mtun_inner *inner)
{
	if (!inner->tunnelled || !skb_is_gso(skb))
		return;
	skb_shinfo(skb)->gso_type |= SKB_GSO_IPXIP6;
	skb->encapsulation = 1;
}

void mtun_decap_take(const struct mtun_decap_answer *answer, struct sk_buff *skb,
		     const struct mtun_inner *inner)
{
	struct mtun_device *mtun = answer->path->mtun;
	struct mtun_load load = mtun_flow_load(skb, inner);
	int drop;

	drop = mtun_decap_congestion(skb, ipv6_get_dsfield(ipv6_hdr(skb)), inner->traffic_class);
	if (!drop && iptunnel_pull_header(skb, 0, htons(ETH_P_IPV6),
					  !net_eq(mtun->net, dev_net(mtun->dev))))
		drop = MTUN_REASON_NO_MEMORY;
	if (drop) {
		mtun_decap_drop(mtun, skb, drop);
		return;
	}
	mtun_decap_nested(skb, inner);
	mtun_decap_admitted(answer, load);
	mtun_decap_deliver(mtun, skb);
}

static int mtun_decap_tunnel(struct sk_buff *skb)
{
	struct mtun_net *mn = mtun_net(dev_net(skb->dev));
	const struct ipv6hdr *outer = ipv6_hdr(skb);
	struct mtun_decap_answer answer;
	struct mtun_inner inner;
	enum mtun_parse parse;

	if (!mtun_path_by_outer(mn, &outer->daddr, &outer->saddr, NULL))
		return 1;
	parse = mtun_encap_parse(skb, &inner);
	outer = ipv6_hdr(skb);
	mtun_decap_ask(mn, &outer->daddr, &outer->saddr, MTUN_ENCAPSULATION_TUNNEL,
		       parse == MTUN_PARSE_OK ? &inner.key : NULL, &answer);
	if (!answer.ours)
		return 1;
	if (parse != MTUN_PARSE_OK)
		answer.reason = mtun_encap_parse_reason(parse);
	if (answer.reason != MTUN_REASON_IN_HIT) {
		mtun_decap_up(answer.path, skb, answer.reason);
		return 0;
	}
	mtun_decap_take(&answer, skb, &inner);
	return 0;
}

static int mtun_decap_unknown(struct sk_buff *skb)
{
	struct mtun_net *mn = mtun_net(dev_net(skb->dev));
	struct mtun_path_entry *entry = mtun_path_by_local(mn, &ipv6_hdr(skb)->daddr);

	if (!entry || !READ_ONCE(entry->path->mtun->listener))
		return 1;
	mtun_decap_up(entry->path, skb, MTUN_REASON_OUTER);
	return 0;
}

/*
 * A router's word that one of our packets was too big is kept where every other is: with the
 * route. All other errors are for user space to judge, which hears ICMPv6 itself.
 */
static int mtun_decap_error(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type, u8 code,
			    int offset, __be32 info)
{
	const struct ipv6hdr *quoted = (const struct ipv6hdr *)skb->data;
	struct net *net = dev_net(skb->dev);
	struct mtun_path_entry *entry;

	if (type != ICMPV6_PKT_TOOBIG)
		return -ENOENT;
	entry = mtun_path_by_outer(mtun_net(net), &quoted->saddr, &quoted->daddr, NULL);
	if (!entry)
		return -ENOENT;
	ip6_update_pmtu(skb, net, info, entry->link, entry->mark, sock_net_uid(net, NULL));
	return 0;
}

static int mtun_decap_foreign_error(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type,
				    u8 code, int offset, __be32 info)
{
	return -ENOENT;
}

static struct xfrm6_tunnel mtun_decap_tunnel_handler __read_mostly = {
	.handler = mtun_decap_tunnel,
	.err_handler = mtun_decap_error,
	.priority = 0,
};

static struct xfrm6_tunnel mtun_decap_unknown_handler __read_mostly = {
	.handler = mtun_decap_unknown,
	.err_handler = mtun_decap_foreign_error,
	.priority = 255,
};

int mtun_decap_register(void)
{
	int err = xfrm6_tunnel_register(&mtun_decap_tunnel_handler, AF_INET6);

	if (err)
		return err;
	err = xfrm6_tunnel_register(&mtun_decap_unknown_handler, AF_INET6);
	if (err)
		xfrm6_tunnel_deregister(&mtun_decap_tunnel_handler, AF_INET6);
	return err;
}

void mtun_decap_unregister(void)
{
	xfrm6_tunnel_deregister(&mtun_decap_unknown_handler, AF_INET6);
	xfrm6_tunnel_deregister(&mtun_decap_tunnel_handler, AF_INET6);
}
