// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: flows. */
#include <net/genetlink.h>

#include "compat.h"
#include "mtun.h"

/* DIRECTION and KEY of a message; both are needed. */
static int mtun_netlink_flow_key(struct genl_info *info, u32 *direction,
				 const struct mtun_key **key)
{
	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_DIRECTION)) {
		NL_SET_ERR_MSG(info->extack, "direction is missing");
		return -EINVAL;
	}
	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_KEY)) {
		NL_SET_ERR_MSG(info->extack, "key is missing");
		return -EINVAL;
	}
	*direction = nla_get_u8(info->attrs[MTUN_A_DIRECTION]);
	*key = nla_data(info->attrs[MTUN_A_KEY]);
	return 0;
}

int mtun_netlink_flow_add(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *lasts = info->attrs[MTUN_A_LASTS], *label = info->attrs[MTUN_A_LABEL];
	const struct mtun_key *key;
	struct mtun_device *mtun;
	struct mtun_path *path;
	u32 direction;
	int err;

	err = mtun_netlink_flow_key(info, &direction, &key);
	if (err)
		return err;
	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_GENERATION)) {
		NL_SET_ERR_MSG(info->extack, "generation is missing");
		return -EINVAL;
	}
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	path = mtun_netlink_path(mtun, info);
	err = PTR_ERR_OR_ZERO(path);
	if (!err)
		err = mtun_flow_add(mtun, direction, key, path,
				    nla_get_u64(info->attrs[MTUN_A_GENERATION]),
				    lasts ? nla_get_u32(lasts) : 0,
				    label ? nla_get_u32(label) : 0,
				    info->nlhdr->nlmsg_flags & NLM_F_EXCL);
	if (err == -ESTALE)
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_GENERATION],
				    "generation: not the registration's");
	else if (err == -ENOSPC)
		NL_SET_ERR_MSG(info->extack, "flow limit reached");
	mtun_device_unlock(mtun);
	return err;
}

static int mtun_netlink_flow_fill(struct sk_buff *msg, const struct mtun_flow *flow)
{
	struct mtun_key key = flow->key;

	key.present &= MTUN_PRESENT_ALL;
	if (nla_put_u8(msg, MTUN_A_DIRECTION, mtun_flow_direction(flow)) ||
	    nla_put(msg, MTUN_A_KEY, sizeof(key), &key) ||
	    nla_put_u32(msg, MTUN_A_PATH, flow->path->id) ||
	    nla_put_u32(msg, MTUN_A_LASTS, flow->lasts * MTUN_LASTS_UNIT) ||
	    nla_put_u32(msg, MTUN_A_LABEL, flow->label) ||
	    nla_put_u64_64bit(msg, MTUN_A_GENERATION, flow->generation, MTUN_A_PAD) ||
	    nla_put_u64_64bit(msg, MTUN_A_PACKETS, atomic_long_read(&flow->packets),
			      MTUN_A_PAD) ||
	    nla_put_u64_64bit(msg, MTUN_A_OCTETS, atomic_long_read(&flow->octets), MTUN_A_PAD) ||
	    nla_put_u32(msg, MTUN_A_IDLE,
			jiffies_to_msecs((u32)jiffies - READ_ONCE(flow->used))))
		return -EMSGSIZE;
	return 0;
}

/* Forgets a flow, with what it carried written into `msg`, if there is one. */
static int mtun_netlink_flow_take(struct mtun_device *mtun, u32 direction,
				  const struct mtun_key *key, const struct mtun_path *path,
				  struct sk_buff *msg)
{
	struct mtun_flow *flow;
	int err = 0;

	rcu_read_lock();
	flow = mtun_flow_delete(mtun, direction, key, path);
	if (!flow)
		err = -ENOENT;
	else if (msg)
		err = mtun_netlink_flow_fill(msg, flow);
	rcu_read_unlock();
	return err;
}

int mtun_netlink_flow_delete(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_path *path = NULL;
	const struct mtun_key *key;
	struct mtun_device *mtun;
	struct sk_buff *msg = NULL;
	void *head = NULL;
	u32 direction;
	int err;

	err = mtun_netlink_flow_key(info, &direction, &key);
	if (err)
		return err;
	if (info->nlhdr->nlmsg_flags & NLM_F_ECHO) {
		msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
		if (!msg)
			return -ENOMEM;
		head = genlmsg_put_reply(msg, info, &mtun_netlink_family, 0, MTUN_CMD_FLOW_GET);
	}
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun)) {
		nlmsg_free(msg);
		return PTR_ERR(mtun);
	}
	if (direction == MTUN_DIRECTION_IN || info->attrs[MTUN_A_PATH])
		path = mtun_netlink_path(mtun, info);
	err = PTR_ERR_OR_ZERO(path);
	if (!err)
		err = mtun_netlink_flow_take(mtun, direction, key, path, msg);
	mtun_device_unlock(mtun);
	if (err || !msg) {
		nlmsg_free(msg);
		return err;
	}
	genlmsg_end(msg, head);
	return genlmsg_reply(msg, info);
}

static int mtun_netlink_flushed(struct genl_info *info, u32 ifindex, u32 flows)
{
	struct sk_buff *msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *head;

	if (!msg)
		return -ENOMEM;
	head = genlmsg_put_reply(msg, info, &mtun_netlink_family, 0, MTUN_CMD_FLOW_FLUSH);
	if (!head || nla_put_u32(msg, MTUN_A_IFINDEX, ifindex) ||
	    nla_put_u32(msg, MTUN_A_FLOWS, flows)) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, head);
	return genlmsg_reply(msg, info);
}

int mtun_netlink_flow_flush(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct mtun_flow_filter filter = {};
	u32 direction, registration, flushed, ifindex;
	struct mtun_device *mtun;
	int err = 0;

	if (!attrs[MTUN_A_KEY] != !attrs[MTUN_A_MASK]) {
		NL_SET_ERR_MSG(info->extack, "key and mask come together");
		return -EINVAL;
	}
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	if (attrs[MTUN_A_PATH]) {
		filter.path = mtun_netlink_path(mtun, info);
		err = PTR_ERR_OR_ZERO(filter.path);
		if (err) {
			mtun_device_unlock(mtun);
			return err;
		}
	}
	if (attrs[MTUN_A_KEY]) {
		filter.key = nla_data(attrs[MTUN_A_KEY]);
		filter.mask = nla_data(attrs[MTUN_A_MASK]);
	}
	if (attrs[MTUN_A_DIRECTION]) {
		direction = nla_get_u8(attrs[MTUN_A_DIRECTION]);
		filter.direction = &direction;
	}
	if (attrs[MTUN_A_REGISTRATION]) {
		registration = nla_get_u32(attrs[MTUN_A_REGISTRATION]);
		filter.registration = &registration;
	}
	flushed = mtun_flow_flush(mtun, &filter);
	ifindex = mtun->dev->ifindex;
	mtun_device_unlock(mtun);
	return mtun_netlink_flushed(info, ifindex, flushed);
}

/* The flows of one bucket from the `skip`th on; how many were done, and whether all. */
static bool mtun_netlink_flow_bucket(struct sk_buff *skb, struct netlink_callback *cb,
				     struct hlist_head *bucket)
{
	struct mtun_flow *flow;
	long at = 0;
	void *head;

	hlist_for_each_entry(flow, bucket, node) {
		if (at++ < cb->args[1])
			continue;
		head = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				   &mtun_netlink_family, NLM_F_MULTI, MTUN_CMD_FLOW_GET);
		if (!head)
			return false;
		genl_dump_check_consistent(cb, head);
		if (mtun_netlink_flow_fill(skb, flow)) {
			genlmsg_cancel(skb, head);
			return false;
		}
		genlmsg_end(skb, head);
		cb->args[1] = at;
	}
	return true;
}

/* cb->args: bucket, flows of it that are done. */
int mtun_netlink_flow_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct nlattr *ifindex = mtun_compat_dump_attrs(cb)[MTUN_A_IFINDEX];
	struct mtun_flow_table *table;
	struct mtun_device *mtun;

	if (!ifindex) {
		NL_SET_ERR_MSG(cb->extack, "ifindex is missing");
		return -EINVAL;
	}
	mtun = mtun_device_lock(sock_net(skb->sk), nla_get_u32(ifindex));
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	/* A change in between is told by NLM_F_DUMP_INTR. */
	cb->seq = mtun->changes + 1;
	table = rcu_dereference_protected(mtun->table, lockdep_is_held(&mtun->lock));
	for (; cb->args[0] < 1L << table->bits; cb->args[0]++, cb->args[1] = 0)
		if (!mtun_netlink_flow_bucket(skb, cb, &table->buckets[cb->args[0]]))
			break;
	mtun_device_unlock(mtun);
	return skb->len;
}
