// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way in, taken early: where packets enter by a link, before packet sockets, the firewall and
 * the stack see them.
 *
 * A daemon that reads received packets by itself would otherwise see those too that are admitted
 * here. What no remembered decision admits goes on as it came, to whoever is next.
 */
#include <linux/netfilter_netdev.h>
#include <linux/if_vlan.h>
#include <net/ipv6.h>

#include "mtun.h"

/* Behind whoever filters where packets enter. */
#define MTUN_INGRESS_PRIORITY 100

/* A link of a device that is listened at. */
struct mtun_ingress {
	struct list_head list;		/* in mtun_device */
	struct nf_hook_ops ops;
	struct rcu_head rcu;
};

/* Whether one whole tunnel packet for this host begins at skb->data. */
static bool mtun_ingress_is_tunnel(struct sk_buff *skb)
{
	const struct ipv6hdr *outer;
	u32 length;

	if (skb->protocol != htons(ETH_P_IPV6) || skb->pkt_type != PACKET_HOST ||
	    skb_vlan_tag_present(skb) || !pskb_may_pull(skb, MTUN_IPV6_HEADER))
		return false;
	outer = (const struct ipv6hdr *)skb->data;
	if (outer->version != 6 || outer->nexthdr != IPPROTO_IPV6)
		return false;
	length = MTUN_IPV6_HEADER + ntohs(outer->payload_len);
	return length <= skb->len && !pskb_trim_rcsum(skb, length);
}

static unsigned int mtun_ingress_input(void *priv, struct sk_buff *skb,
				       const struct nf_hook_state *state)
{
	struct mtun_net *mn = mtun_net(state->net);
	struct mtun_device *mtun = priv;
	struct mtun_decap_answer answer;
	struct in6_addr local, remote;
	struct mtun_inner inner;

	if (!mtun_ingress_is_tunnel(skb))
		return NF_ACCEPT;
	local = ipv6_hdr(skb)->daddr;
	remote = ipv6_hdr(skb)->saddr;
	if (!mtun_path_by_outer(mn, &local, &remote, NULL))
		return NF_ACCEPT;
	skb_pull_rcsum(skb, MTUN_IPV6_HEADER);
	if (mtun_encap_parse(skb, &inner) == MTUN_PARSE_OK) {
		mtun_decap_ask(mn, &local, &remote, MTUN_ENCAPSULATION_TUNNEL, &inner.key, &answer);
		if (answer.ours && answer.reason == MTUN_REASON_IN_HIT &&
		    answer.path->mtun == mtun) {
			mtun_decap_take(&answer, skb, &inner);
			return NF_STOLEN;
		}
	}
	skb_push_rcsum(skb, MTUN_IPV6_HEADER);
	return NF_ACCEPT;
}

static struct mtun_ingress *mtun_ingress_of(struct mtun_device *mtun, u32 link)
{
	struct mtun_ingress *ingress;

	list_for_each_entry(ingress, &mtun->ingresses, list)
		if (ingress->ops.dev->ifindex == link)
			return ingress;
	return NULL;
}

/* Under RTNL too: the link stays while its hook is put in. */
int mtun_ingress_attach(struct mtun_device *mtun, u32 link, struct netlink_ext_ack *extack)
{
	struct net_device *dev = __dev_get_by_index(mtun->net, link);
	struct mtun_ingress *ingress;
	int err;

	if (!dev) {
		NL_SET_ERR_MSG(extack, "link: no such device in the namespace of the uplinks");
		return -ENODEV;
	}
	if (dev == mtun->dev) {
		NL_SET_ERR_MSG(extack, "link: the device itself");
		return -ELOOP;
	}
	if (mtun_ingress_of(mtun, link))
		return -EEXIST;
	ingress = kzalloc(sizeof(*ingress), GFP_KERNEL_ACCOUNT);
	if (!ingress)
		return -ENOMEM;
	ingress->ops = (struct nf_hook_ops) {
		.hook = mtun_ingress_input,
		.dev = dev,
		.priv = mtun,
		.pf = NFPROTO_NETDEV,
		.hooknum = NF_NETDEV_INGRESS,
		.priority = MTUN_INGRESS_PRIORITY,
	};
	err = nf_register_net_hook(mtun->net, &ingress->ops);
	if (err) {
		kfree(ingress);
		return err;
	}
	list_add(&ingress->list, &mtun->ingresses);
	return 0;
}

static void mtun_ingress_remove(struct mtun_device *mtun, struct mtun_ingress *ingress)
{
	nf_unregister_net_hook(mtun->net, &ingress->ops);
	list_del(&ingress->list);
	kfree_rcu(ingress, rcu);
}

int mtun_ingress_detach(struct mtun_device *mtun, u32 link)
{
	struct mtun_ingress *ingress = mtun_ingress_of(mtun, link);

	if (!ingress)
		return -ENOENT;
	mtun_ingress_remove(mtun, ingress);
	return 0;
}

void mtun_ingress_flush(struct mtun_device *mtun)
{
	struct mtun_ingress *ingress, *next;

	list_for_each_entry_safe(ingress, next, &mtun->ingresses, list)
		mtun_ingress_remove(mtun, ingress);
}
