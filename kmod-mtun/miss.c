// SPDX-License-Identifier: GPL-2.0-only
/*
 * Packets up: what no remembered decision covers, with the reason.
 *
 * The packet path puts them into a bounded queue; a worker segments superpackets, completes
 * checksums and hands them to the one socket that listens. A full queue or a slow listener loses
 * packets, counted, never memory.
 */
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/sock.h>

#include "compat.h"
#include "mtun.h"

struct mtun_miss {
	u32 direction;
	u32 reason;
	u32 path;
	u32 ingress;
	u32 uid;
	bool local;
};

static struct mtun_miss *mtun_miss(struct sk_buff *skb)
{
	BUILD_BUG_ON(sizeof(struct mtun_miss) > sizeof_field(struct sk_buff, cb));
	return (struct mtun_miss *)skb->cb;
}

/* Consumes the packet, which begins at skb->data. Under RCU, any context but hard interrupt. */
void mtun_miss_enqueue(struct mtun_device *mtun, struct sk_buff *skb, u32 direction,
		       enum mtun_reason reason, u32 path)
{
	struct sock *sk = direction == MTUN_DIRECTION_OUT ? skb_to_full_sk(skb) : NULL;
	struct mtun_miss miss = {
		.direction = direction,
		.reason = reason,
		.path = path,
	};

	miss.ingress = direction == MTUN_DIRECTION_OUT ? mtun_device_ingress(mtun, skb) :
							 skb->skb_iif;
	mtun_count(mtun, reason);
	if (sk && sk_fullsock(sk)) {
		miss.uid = from_kuid_munged(sock_net(sk)->user_ns,
					    sock_net_uid(sock_net(sk), sk));
		miss.local = true;
	}
	if (!READ_ONCE(mtun->listener))
		reason = MTUN_REASON_NO_DAEMON;
	else if (skb_queue_len_lockless(&mtun->misses) >= READ_ONCE(mtun->miss_limit))
		reason = MTUN_REASON_QUEUE_FULL;
	else
		goto queue;
	mtun_count(mtun, reason);
	if (direction == MTUN_DIRECTION_OUT)
		DEV_STATS_INC(mtun->dev, tx_dropped);
	else
		DEV_STATS_INC(mtun->dev, rx_dropped);
	kfree_skb(skb);
	return;
queue:
	skb_orphan(skb);
	skb_dst_drop(skb);
	nf_reset_ct(skb);
	memset(skb->cb, 0, sizeof(skb->cb));
	*mtun_miss(skb) = miss;
	skb_queue_tail(&mtun->misses, skb);
	queue_work(mtun_workqueue, &mtun->miss_work);
}

static int mtun_miss_fill(struct sk_buff *msg, struct mtun_device *mtun, struct sk_buff *skb,
			  const struct mtun_miss *miss)
{
	struct nlattr *packet;
	void *head;

	head = genlmsg_put(msg, 0, 0, &mtun_netlink_family, 0, MTUN_CMD_MISS);
	if (!head ||
	    nla_put_u32(msg, MTUN_A_IFINDEX, mtun->dev->ifindex) ||
	    nla_put_u8(msg, MTUN_A_DIRECTION, miss->direction) ||
	    nla_put_u32(msg, MTUN_A_REASON, miss->reason) ||
	    nla_put_u32(msg, MTUN_A_INGRESS, miss->ingress) ||
	    (miss->path && nla_put_u32(msg, MTUN_A_PATH, miss->path)) ||
	    (miss->local && nla_put_u32(msg, MTUN_A_UID, miss->uid)))
		return -EMSGSIZE;
	packet = nla_reserve(msg, MTUN_A_PACKET, skb->len);
	if (!packet || skb_copy_bits(skb, 0, nla_data(packet), skb->len))
		return -EMSGSIZE;
	genlmsg_end(msg, head);
	return 0;
}

/* One packet, of the size of a wire packet. */
static void mtun_miss_send(struct mtun_device *mtun, struct sk_buff *skb,
			   const struct mtun_miss *miss)
{
	u32 listener = READ_ONCE(mtun->listener);
	struct sk_buff *msg;

	if (!listener) {
		mtun_count(mtun, MTUN_REASON_NO_DAEMON);
		return;
	}
	/* An attribute's length has sixteen bits. */
	if (skb->len > U16_MAX - NLA_HDRLEN ||
	    (skb->ip_summed == CHECKSUM_PARTIAL && skb_checksum_help(skb))) {
		mtun_count(mtun, MTUN_REASON_QUEUE_FULL);
		return;
	}
	msg = genlmsg_new(nla_total_size(skb->len) + 64, GFP_KERNEL);
	if (!msg || mtun_miss_fill(msg, mtun, skb, miss)) {
		nlmsg_free(msg);
		mtun_count(mtun, MTUN_REASON_NO_MEMORY);
		return;
	}
	if (genlmsg_unicast(dev_net(mtun->dev), msg, listener))
		mtun_count(mtun, MTUN_REASON_QUEUE_FULL);
}

void mtun_miss_work(struct work_struct *work)
{
	struct mtun_device *mtun = container_of(work, struct mtun_device, miss_work);
	struct sk_buff *skb;

	while ((skb = skb_dequeue(&mtun->misses))) {
		struct mtun_miss miss = *mtun_miss(skb);
		struct sk_buff *segments, *next;

		if (!skb_is_gso(skb)) {
			mtun_miss_send(mtun, skb, &miss);
			consume_skb(skb);
			continue;
		}
		skb_reset_mac_header(skb);
		skb_reset_network_header(skb);
		skb->mac_len = 0;
		local_bh_disable();
		segments = __skb_gso_segment(skb, NETIF_F_SG, false);
		local_bh_enable();
		if (IS_ERR_OR_NULL(segments)) {
			mtun_count(mtun, MTUN_REASON_NO_MEMORY);
			kfree_skb(skb);
			continue;
		}
		consume_skb(skb);
		skb_list_walk_safe(segments, skb, next) {
			skb_mark_not_on_list(skb);
			mtun_miss_send(mtun, skb, &miss);
			consume_skb(skb);
		}
		cond_resched();
	}
}
