// SPDX-License-Identifier: GPL-2.0-only
/*
 * Route-optimized packets in: a Home Address option, a type 2 routing header, or both
 * (RFC 6275 6.3, 6.4).
 *
 * They are taken where packets for this host enter, before the stack walks the extension headers:
 * a kernel without Mobile IPv6 would answer them with an error, one with it would ask xfrm.
 * Nothing is changed before a remembered decision admits the packet. Signalling is not data: a
 * Mobility Header goes on as it came.
 */
#include <linux/netfilter_ipv6.h>
#include <net/ipv6.h>

#include "mtun.h"

/* Enough of the upper layer for the key. */
#define MTUN_OPTIMIZED_UPPER 8

/* The packet as it would be without those headers, as far as the key needs it. */
static enum mtun_parse mtun_optimized_parse(const struct sk_buff *skb,
					    const struct mtun_optimized *found,
					    struct mtun_inner *inner)
{
	u8 plain[MTUN_IPV6_HEADER + MTUN_OPTIMIZED_UPPER];
	u32 upper = min_t(u32, MTUN_OPTIMIZED_UPPER, skb->len - found->length);
	u32 total = skb->len - found->length + MTUN_IPV6_HEADER;

	memcpy(plain, skb->data, MTUN_IPV6_HEADER);
	plain[4] = (total - MTUN_IPV6_HEADER) >> 8;
	plain[5] = total - MTUN_IPV6_HEADER;
	plain[6] = found->next;
	memcpy(plain + 8, found->source, 16);
	memcpy(plain + 24, found->destination, 16);
	if (skb_copy_bits(skb, found->length, plain + MTUN_IPV6_HEADER, upper))
		return MTUN_PARSE_HEADERS;
	return mtun_key_parse(plain, MTUN_IPV6_HEADER + upper, total, inner);
}

/* The peer's headers are the mirror of ours: its home address is our routing header's. */
static u8 mtun_optimized_mirrored(u8 encapsulation)
{
	return (encapsulation & MTUN_ENCAPSULATION_HOME_ADDRESS ?
		MTUN_ENCAPSULATION_ROUTING : 0) |
	       (encapsulation & MTUN_ENCAPSULATION_ROUTING ?
		MTUN_ENCAPSULATION_HOME_ADDRESS : 0);
}

static int mtun_optimized_strip(struct sk_buff *skb, const struct mtun_optimized *found)
{
	if (skb_ensure_writable(skb, found->length))
		return -ENOMEM;
	/* The sum over the whole would have to lose what is taken out. */
	if (skb->ip_summed == CHECKSUM_COMPLETE)
		skb->ip_summed = CHECKSUM_NONE;
	__skb_pull(skb, mtun_header_restore(skb->data, found));
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, MTUN_IPV6_HEADER);
	return 0;
}

static unsigned int mtun_optimized_input(void *priv, struct sk_buff *skb,
					 const struct nf_hook_state *state)
{
	struct mtun_net *mn = mtun_net(state->net);
	const struct ipv6hdr *header = ipv6_hdr(skb);
	struct mtun_decap_answer answer;
	struct mtun_optimized found;
	struct mtun_device *mtun;
	struct mtun_inner inner;
	enum mtun_parse parse;

	if (header->nexthdr != MTUN_PROTO_ROUTING &&
	    header->nexthdr != MTUN_PROTO_DESTINATION_OPTIONS)
		return NF_ACCEPT;
	if (!mtun_path_by_outer(mn, &header->daddr, &header->saddr, NULL))
		return NF_ACCEPT;
	if (!pskb_may_pull(skb, min_t(u32, skb->len, MTUN_HEADER_MAX + MTUN_OPTIMIZED_UPPER)) ||
	    !mtun_header_optimized(skb->data, skb_headlen(skb), &found) ||
	    found.length > skb->len || found.next == MTUN_PROTO_MOBILITY)
		return NF_ACCEPT;
	parse = mtun_optimized_parse(skb, &found, &inner);
	header = ipv6_hdr(skb);
	mtun_decap_ask(mn, &header->daddr, &header->saddr,
		       mtun_optimized_mirrored(found.encapsulation),
		       parse == MTUN_PARSE_OK ? &inner.key : NULL, &answer);
	if (!answer.ours)
		return NF_ACCEPT;
	if (parse != MTUN_PARSE_OK)
		answer.reason = mtun_encap_parse_reason(parse);
	if (answer.reason != MTUN_REASON_IN_HIT) {
		mtun_decap_up(answer.path, skb, answer.reason);
		return NF_STOLEN;
	}
	mtun = answer.path->mtun;
	if (mtun_optimized_strip(skb, &found)) {
		mtun_decap_drop(mtun, skb, MTUN_REASON_NO_MEMORY);
		return NF_STOLEN;
	}
	mtun_decap_admitted(&answer, mtun_flow_load(skb, &inner));
	mtun_decap_deliver(mtun, skb);
	return NF_STOLEN;
}

static const struct nf_hook_ops mtun_optimized_hook = {
	.hook = mtun_optimized_input,
	.pf = NFPROTO_IPV6,
	.hooknum = NF_INET_LOCAL_IN,
	.priority = NF_IP6_PRI_FIRST,
};

int mtun_optimized_register(struct net *net)
{
	return nf_register_net_hook(net, &mtun_optimized_hook);
}

void mtun_optimized_unregister(struct net *net)
{
	nf_unregister_net_hook(net, &mtun_optimized_hook);
}
