// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way out: parse, look up, wrap, send by the path's link.
 *
 * What no remembered decision covers goes up whole and untouched. No lock is taken, and nothing
 * sleeps: this runs in softirq.
 */
#include <linux/icmpv6.h>
#include <net/icmp.h>
#include <net/ip6_route.h>
#include <net/ip6_tunnel.h>
#include <net/ip_tunnels.h>
#include <net/ipv6.h>
#include <net/sock.h>

#include "compat.h"
#include "mtun.h"

/* Reads the packet that begins at skb->data, pulling together what it needs. */
enum mtun_parse mtun_encap_parse(struct sk_buff *skb, struct mtun_inner *inner)
{
	enum mtun_parse parse;

	for (;;) {
		parse = mtun_key_parse(skb->data, skb_headlen(skb), skb->len, inner);
		if (parse != MTUN_PARSE_PULL)
			return parse;
		if (!pskb_may_pull(skb, inner->pull))
			return MTUN_PARSE_HEADERS;
	}
}

enum mtun_reason mtun_encap_parse_reason(enum mtun_parse parse)
{
	switch (parse) {
	case MTUN_PARSE_VERSION:
		return MTUN_REASON_VERSION;
	case MTUN_PARSE_LENGTH:
		return MTUN_REASON_LENGTH;
	case MTUN_PARSE_FRAGMENT:
		return MTUN_REASON_FRAGMENT;
	default:
		return MTUN_REASON_HEADERS;
	}
}

static void mtun_encap_drop(struct mtun_device *mtun, struct sk_buff *skb,
			    enum mtun_reason reason)
{
	mtun_count(mtun, reason);
	DEV_STATS_INC(mtun->dev, tx_dropped);
	kfree_skb(skb);
}

static bool mtun_encap_fits(struct sk_buff *skb, u32 mtu)
{
	if (skb_is_gso(skb))
		return skb_gso_validate_network_len(skb, mtu);
	return skb->len <= mtu;
}

static void mtun_encap_too_big(struct sk_buff *skb, u32 mtu)
{
	/* A forwarded packet's destination may have larger paths: its sender alone is told. */
	if (skb->sk && skb_dst(skb))
		skb_dst_update_pmtu_no_confirm(skb, mtu);
	memset(skb->cb, 0, sizeof(skb->cb));
	icmpv6_ndo_send(skb, ICMPV6_PKT_TOOBIG, 0, mtu);
}

/* Puts the headers on; the packet has the room. */
static int mtun_encap_wrap(struct sk_buff *skb, const struct mtun_path_entry *entry,
			   const struct mtun_inner *inner, int overhead,
			   const struct net_device *link, u32 label)
{
	struct mtun_outer outer = {
		.local = entry->local.s6_addr,
		.remote = entry->remote.s6_addr,
		.hop_limit = entry->hop_limit,
	};
	u32 length = skb->len;
	int err;

	if (entry->encapsulation != MTUN_ENCAPSULATION_TUNNEL) {
		/* A link that sums over the addresses it sees would sum over the wrong ones. */
		if (skb->ip_summed == CHECKSUM_PARTIAL && !skb_is_gso(skb) &&
		    !(link->features & NETIF_F_HW_CSUM)) {
			err = skb_checksum_help(skb);
			if (err)
				return err;
		}
		skb_push(skb, overhead);
		mtun_header_optimize(skb->data, entry->encapsulation, outer.local, outer.remote);
		skb_reset_network_header(skb);
		return 0;
	}
	/* Keeps a flow on one way and spreads flows (RFC 6438); the hash is keyed. */
	outer.flow_label = label ?: skb_get_hash(skb) & 0xfffff;
	err = iptunnel_handle_offloads(skb, SKB_GSO_IPXIP6);
	if (err)
		return err;
	skb_set_inner_ipproto(skb, IPPROTO_IPV6);
	skb_push(skb, overhead);
	mtun_header_tunnel(skb->data, &outer, inner, length);
	skb_reset_network_header(skb);
	return 0;
}

/* With `fragment`, the outer packet leaves in pieces of at most that size. */
static void mtun_encap_send(struct mtun_device *mtun, struct mtun_path *path,
			    struct sk_buff *skb, unsigned int octets, u32 fragment)
{
	struct pcpu_sw_netstats *stats;
	int err;

	memset(IP6CB(skb), 0, sizeof(*IP6CB(skb)));
	IP6CB(skb)->frag_max_size = fragment;
	err = ip6_local_out(mtun->net, NULL, skb);
	if (unlikely(net_xmit_eval(err))) {
		mtun_count(mtun, MTUN_REASON_NOT_SENT);
		DEV_STATS_INC(mtun->dev, tx_dropped);
		return;
	}
	dev_sw_netstats_tx_add(mtun->dev, 1, octets);
	stats = this_cpu_ptr(path->stats);
	u64_stats_update_begin(&stats->syncp);
	u64_stats_inc(&stats->tx_packets);
	u64_stats_add(&stats->tx_bytes, octets);
	u64_stats_update_end(&stats->syncp);
}

/* A superpacket whose pieces have to be fragmented outside: piece by piece. */
static void mtun_encap_pieces(struct mtun_device *mtun, struct mtun_path *path,
			      struct sk_buff *skb, const struct mtun_inner *inner, u32 label)
{
	struct sk_buff *pieces = __skb_gso_segment(skb, NETIF_F_SG | NETIF_F_HW_CSUM, false);
	struct sk_buff *next;

	if (IS_ERR_OR_NULL(pieces)) {
		mtun_encap_drop(mtun, skb, MTUN_REASON_NO_MEMORY);
		return;
	}
	consume_skb(skb);
	skb_list_walk_safe(pieces, skb, next) {
		enum mtun_reason reason;

		skb_mark_not_on_list(skb);
		reason = mtun_encap_output(mtun, path, skb, inner, label);
		/* The path was deleted in between. */
		if (reason != MTUN_REASON_OUT_HIT)
			mtun_encap_drop(mtun, skb, reason);
	}
}

/* Called under RCU with bottom halves off. */
enum mtun_reason mtun_encap_output(struct mtun_device *mtun, struct mtun_path *path,
				   struct sk_buff *skb, const struct mtun_inner *inner, u32 label)
{
	struct mtun_path_entry *entry = rcu_dereference(path->entry);
	unsigned int octets = skb->len;
	u32 mtu, outer_mtu, fragment = 0;
	struct dst_entry *dst;
	int overhead;
	bool noref;

	if (!entry)
		return MTUN_REASON_PATH_GONE;
	if (!inner->hop_limit)
		return MTUN_REASON_HOP_LIMIT;
	overhead = mtun_header_overhead(entry->encapsulation, inner);
	if (overhead < 0)
		return inner->limited && !inner->limit ? MTUN_REASON_ENCAPSULATION_LIMIT :
							 MTUN_REASON_ENCAPSULATION;

	dst = mtun_path_route(mtun, entry, &noref);
	if (!dst) {
		mtun_encap_drop(mtun, skb, MTUN_REASON_NO_ROUTE);
		return MTUN_REASON_OUT_HIT;
	}
	outer_mtu = dst_mtu(dst);
	if (entry->mtu && entry->mtu < outer_mtu)
		outer_mtu = entry->mtu;
	/* What would be below IPv6's minimum inside is fragmented outside instead. */
	mtu = max_t(u32, outer_mtu - overhead, IPV6_MIN_MTU);
	if (!mtun_encap_fits(skb, mtu)) {
		mtun_encap_too_big(skb, mtu);
		mtun_encap_drop(mtun, skb, MTUN_REASON_TOO_BIG);
		goto release;
	}
	if (!mtun_encap_fits(skb, outer_mtu - overhead)) {
		if (skb_is_gso(skb)) {
			mtun_encap_pieces(mtun, path, skb, inner, label);
			goto release;
		}
		fragment = outer_mtu;
	}
	if (skb_cow_head(skb, LL_RESERVED_SPACE(dst->dev) + dst->header_len + overhead) ||
	    mtun_encap_wrap(skb, entry, inner, overhead, dst->dev, label)) {
		mtun_encap_drop(mtun, skb, MTUN_REASON_NO_MEMORY);
		goto release;
	}
	skb_scrub_packet(skb, !net_eq(mtun->net, dev_net(mtun->dev)));
	skb->mark = entry->mark;
	skb->ignore_df = 1;
	skb->protocol = htons(ETH_P_IPV6);
	if (noref)
		skb_dst_set_noref(skb, dst);
	else
		skb_dst_set(skb, dst);
	mtun_encap_send(mtun, path, skb, octets, fragment);
	return MTUN_REASON_OUT_HIT;

release:
	if (!noref)
		dst_release(dst);
	return MTUN_REASON_OUT_HIT;
}

static void mtun_encap_origin(const struct mtun_device *mtun, struct sk_buff *skb,
			      struct mtun_key *key)
{
	struct sock *sk = skb_to_full_sk(skb);

	key->ingress = mtun_device_ingress(mtun, skb);
	if (sk && sk_fullsock(sk)) {
		key->uid = from_kuid_munged(sock_net(sk)->user_ns, sock_net_uid(sock_net(sk), sk));
		key->present |= MTUN_PRESENT_UID;
	}
}

netdev_tx_t mtun_encap_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct mtun_device *mtun = netdev_priv(dev);
	enum mtun_reason reason;
	struct mtun_inner inner;
	struct mtun_flow *flow;
	enum mtun_parse parse;
	struct mtun_load load;
	u32 path = 0;

	rcu_read_lock();
	if (skb->protocol != htons(ETH_P_IPV6)) {
		reason = MTUN_REASON_VERSION;
		goto up;
	}
	parse = mtun_encap_parse(skb, &inner);
	if (parse != MTUN_PARSE_OK) {
		reason = mtun_encap_parse_reason(parse);
		goto up;
	}
	mtun_encap_origin(mtun, skb, &inner.key);
	flow = mtun_flow_lookup(rcu_dereference(mtun->table), MTUN_DIRECTION_OUT, &inner.key,
				NULL);
	reason = mtun_flow_judge(flow);
	if (flow)
		path = flow->path->id;
	if (reason != MTUN_REASON_OUT_HIT)
		goto up;
	load = mtun_flow_load(skb, &inner);
	reason = mtun_encap_output(mtun, flow->path, skb, &inner, flow->label);
	if (reason != MTUN_REASON_OUT_HIT)
		goto up;
	mtun_flow_touch(flow, load);
	mtun_count(mtun, MTUN_REASON_OUT_HIT);
	rcu_read_unlock();
	return NETDEV_TX_OK;
up:
	mtun_miss_enqueue(mtun, skb, MTUN_DIRECTION_OUT, reason, path);
	rcu_read_unlock();
	return NETDEV_TX_OK;
}
