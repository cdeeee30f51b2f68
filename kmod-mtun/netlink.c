// SPDX-License-Identifier: GPL-2.0-only
/*
 * The generic-netlink family: what each command may carry, and the commands about a device.
 *
 * Each command has its own policy, so an attribute that it does not know is refused by name.
 * All commands need CAP_NET_ADMIN over the namespace, reading too: flows tell who talks to whom.
 */
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_byteorder.h>
#include <linux/virtio_net.h>
#include <net/genetlink.h>
#include <net/ipv6.h>

#include "compat.h"
#include "mtun.h"

static struct netlink_range_validation mtun_netlink_flow_limit = {
	.min = 1, .max = MTUN_FLOW_LIMIT_MAX,
};

static struct netlink_range_validation mtun_netlink_flow_idle = {
	.min = 1, .max = MTUN_FLOW_IDLE_MAX,
};

static struct netlink_range_validation mtun_netlink_miss_limit = {
	.min = 1, .max = MTUN_MISS_LIMIT_MAX,
};

static struct netlink_range_validation mtun_netlink_lasts = {
	.min = 0, .max = MTUN_LASTS_MAX,
};

static struct netlink_range_validation mtun_netlink_label = {
	.min = 0, .max = 0xfffff,
};

static struct netlink_range_validation mtun_netlink_lease = {
	.min = 0, .max = MTUN_LEASE_MAX,
};

static struct netlink_range_validation mtun_netlink_mtu = {
	.min = 0, .max = 0xffff,
};

#define MTUN_P_IFINDEX [MTUN_A_IFINDEX] = NLA_POLICY_MIN(NLA_U32, 1)
#define MTUN_P_DIRECTION [MTUN_A_DIRECTION] = NLA_POLICY_MAX(NLA_U8, MTUN_DIRECTION_IN)
#define MTUN_P_PATH [MTUN_A_PATH] = NLA_POLICY_MIN(NLA_U32, 1)
#define MTUN_P_REGISTRATION [MTUN_A_REGISTRATION] = { .type = NLA_U32 }
#define MTUN_P_GENERATION [MTUN_A_GENERATION] = { .type = NLA_U64 }
#define MTUN_P_ADDRESS NLA_POLICY_EXACT_LEN(sizeof(struct in6_addr))
#define MTUN_P_KEY NLA_POLICY_EXACT_LEN(sizeof(struct mtun_key))
#define MTUN_P_WHERE							\
	[MTUN_A_LOCAL] = MTUN_P_ADDRESS,				\
	[MTUN_A_REMOTE] = MTUN_P_ADDRESS,				\
	[MTUN_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),			\
	[MTUN_A_NEXT_HOP] = MTUN_P_ADDRESS,				\
	[MTUN_A_MTU] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_mtu),\
	[MTUN_A_HOP_LIMIT] = { .type = NLA_U8 },			\
	[MTUN_A_MARK] = { .type = NLA_U32 },				\
	[MTUN_A_ENCAPSULATION] = NLA_POLICY_MAX(NLA_U8,			\
		MTUN_ENCAPSULATION_HOME_ADDRESS | MTUN_ENCAPSULATION_ROUTING)

#define MTUN_POLICY(name, ...)						\
	static const struct nla_policy mtun_policy_##name[MTUN_A_MAX + 1] = { __VA_ARGS__ }

MTUN_POLICY(only_device, MTUN_P_IFINDEX);
MTUN_POLICY(device, MTUN_P_IFINDEX,
	    [MTUN_A_MASK_OUT] = MTUN_P_KEY,
	    [MTUN_A_MASK_IN] = MTUN_P_KEY,
	    [MTUN_A_FLOW_LIMIT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_flow_limit),
	    [MTUN_A_FLOW_IDLE] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_flow_idle),
	    [MTUN_A_MISS_LIMIT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_miss_limit),
	    [MTUN_A_LEASE] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_lease),
	    [MTUN_A_DOORS] = { .type = NLA_BINARY,
			       .len = MTUN_DOOR_LIMIT * sizeof(struct mtun_door) });
MTUN_POLICY(path_new, MTUN_P_IFINDEX, MTUN_P_PATH, MTUN_P_REGISTRATION, MTUN_P_GENERATION,
	    MTUN_P_WHERE);
MTUN_POLICY(path_change, MTUN_P_IFINDEX, MTUN_P_PATH, MTUN_P_WHERE);
MTUN_POLICY(path, MTUN_P_IFINDEX, MTUN_P_PATH);
MTUN_POLICY(generation, MTUN_P_IFINDEX, MTUN_P_REGISTRATION, MTUN_P_GENERATION);
MTUN_POLICY(flow, MTUN_P_IFINDEX, MTUN_P_DIRECTION, MTUN_P_PATH, MTUN_P_GENERATION,
	    [MTUN_A_KEY] = MTUN_P_KEY,
	    [MTUN_A_LASTS] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_lasts),
	    [MTUN_A_LABEL] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_netlink_label));
MTUN_POLICY(flow_key, MTUN_P_IFINDEX, MTUN_P_DIRECTION, MTUN_P_PATH,
	    [MTUN_A_KEY] = MTUN_P_KEY);
MTUN_POLICY(filter, MTUN_P_IFINDEX, MTUN_P_DIRECTION, MTUN_P_PATH, MTUN_P_REGISTRATION,
	    [MTUN_A_KEY] = MTUN_P_KEY,
	    [MTUN_A_MASK] = MTUN_P_KEY);
MTUN_POLICY(execute, MTUN_P_IFINDEX, MTUN_P_DIRECTION, MTUN_P_PATH,
	    [MTUN_A_PACKET] = NLA_POLICY_MIN_LEN(MTUN_IPV6_HEADER),
	    [MTUN_A_VNET] = NLA_POLICY_EXACT_LEN(sizeof(struct virtio_net_hdr)));
MTUN_POLICY(link, MTUN_P_IFINDEX, [MTUN_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1));

/* The device a message is about, locked. */
struct mtun_device *mtun_netlink_device(struct genl_info *info)
{
	struct mtun_device *mtun;

	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_IFINDEX)) {
		NL_SET_ERR_MSG(info->extack, "ifindex is missing");
		return ERR_PTR(-EINVAL);
	}
	mtun = mtun_device_lock(genl_info_net(info), nla_get_u32(info->attrs[MTUN_A_IFINDEX]));
	if (mtun == ERR_PTR(-ENODEV))
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_IFINDEX],
				    "ifindex: no such device");
	else if (IS_ERR(mtun))
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_IFINDEX],
				    "ifindex: not of kind mtun");
	return mtun;
}

static int mtun_netlink_doors(struct mtun_device *mtun, struct genl_info *info)
{
	const struct nlattr *doors = info->attrs[MTUN_A_DOORS];

	if (nla_len(doors) % sizeof(struct mtun_door)) {
		NL_SET_ERR_MSG_ATTR(info->extack, doors, "doors: half a door");
		return -EINVAL;
	}
	return mtun_device_doors(mtun, nla_data(doors), nla_len(doors) / sizeof(struct mtun_door));
}

static int mtun_netlink_device_set(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct mtun_device *mtun = mtun_netlink_device(info);
	int err = 0;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	if (attrs[MTUN_A_MASK_OUT] || attrs[MTUN_A_MASK_IN] || attrs[MTUN_A_FLOW_LIMIT])
		err = mtun_flow_table_replace(mtun,
			attrs[MTUN_A_FLOW_LIMIT] ? nla_get_u32(attrs[MTUN_A_FLOW_LIMIT]) : 0,
			attrs[MTUN_A_MASK_OUT] ? nla_data(attrs[MTUN_A_MASK_OUT]) : NULL,
			attrs[MTUN_A_MASK_IN] ? nla_data(attrs[MTUN_A_MASK_IN]) : NULL);
	if (!err && attrs[MTUN_A_FLOW_IDLE])
		mtun->flow_idle = nla_get_u32(attrs[MTUN_A_FLOW_IDLE]);
	if (!err && attrs[MTUN_A_DOORS])
		err = mtun_netlink_doors(mtun, info);
	if (!err && attrs[MTUN_A_LEASE])
		mtun_device_lease(mtun, nla_get_u32(attrs[MTUN_A_LEASE]));
	if (!err && attrs[MTUN_A_MISS_LIMIT])
		WRITE_ONCE(mtun->miss_limit, nla_get_u32(attrs[MTUN_A_MISS_LIMIT]));
	mtun_device_unlock(mtun);
	return err;
}

static int mtun_netlink_device_fill(struct sk_buff *msg, struct mtun_device *mtun,
				    struct genl_info *info)
{
	const struct mtun_flow_table *table =
		rcu_dereference_protected(mtun->table, lockdep_is_held(&mtun->lock));
	void *head = genlmsg_put_reply(msg, info, &mtun_netlink_family, 0, MTUN_CMD_DEVICE_GET);

	if (!head ||
	    nla_put_u32(msg, MTUN_A_IFINDEX, mtun->dev->ifindex) ||
	    nla_put(msg, MTUN_A_MASK_OUT, sizeof(struct mtun_key),
		    &table->mask[MTUN_DIRECTION_OUT]) ||
	    nla_put(msg, MTUN_A_MASK_IN, sizeof(struct mtun_key),
		    &table->mask[MTUN_DIRECTION_IN]) ||
	    nla_put_u32(msg, MTUN_A_FLOW_LIMIT, table->limit) ||
	    nla_put_u32(msg, MTUN_A_FLOW_IDLE, mtun->flow_idle) ||
	    nla_put_u32(msg, MTUN_A_MISS_LIMIT, mtun->miss_limit) ||
	    nla_put_u32(msg, MTUN_A_FLOWS, mtun->flows) ||
	    nla_put_u32(msg, MTUN_A_PATHS, mtun->path_count))
		return -EMSGSIZE;
	genlmsg_end(msg, head);
	return 0;
}

static int mtun_netlink_counters_fill(struct sk_buff *msg, struct mtun_device *mtun,
				      struct genl_info *info)
{
	void *head = genlmsg_put_reply(msg, info, &mtun_netlink_family, 0,
				       MTUN_CMD_COUNTERS_GET);
	u64 counters[__MTUN_REASON_COUNT];

	mtun_device_counters(mtun, counters);
	if (!head ||
	    nla_put_u32(msg, MTUN_A_IFINDEX, mtun->dev->ifindex) ||
	    nla_put_64bit(msg, MTUN_A_COUNTERS, sizeof(counters), counters, MTUN_A_PAD))
		return -EMSGSIZE;
	genlmsg_end(msg, head);
	return 0;
}

static int mtun_netlink_answer(struct genl_info *info,
			       int (*fill)(struct sk_buff *msg, struct mtun_device *mtun,
					   struct genl_info *info))
{
	struct mtun_device *mtun = mtun_netlink_device(info);
	struct sk_buff *msg;
	int err;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	err = msg ? fill(msg, mtun, info) : -ENOMEM;
	mtun_device_unlock(mtun);
	if (err) {
		nlmsg_free(msg);
		return err;
	}
	return genlmsg_reply(msg, info);
}

static int mtun_netlink_device_get(struct sk_buff *skb, struct genl_info *info)
{
	return mtun_netlink_answer(info, mtun_netlink_device_fill);
}

static int mtun_netlink_counters_get(struct sk_buff *skb, struct genl_info *info)
{
	return mtun_netlink_answer(info, mtun_netlink_counters_fill);
}

static int mtun_netlink_listen(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_device *mtun = mtun_netlink_device(info);
	int err = 0;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	if (mtun->listener && mtun->listener != info->snd_portid) {
		NL_SET_ERR_MSG(info->extack, "another socket listens");
		err = -EBUSY;
	} else {
		WRITE_ONCE(mtun->listener, info->snd_portid);
	}
	mtun_device_unlock(mtun);
	return err;
}

static struct sk_buff *mtun_netlink_packet(const struct nlattr *attr)
{
	unsigned int length = nla_len(attr);
	struct sk_buff *skb;

	skb = alloc_skb(LL_MAX_HEADER + MTUN_HEADER_MAX + length, GFP_KERNEL);
	if (!skb)
		return NULL;
	skb_reserve(skb, LL_MAX_HEADER + MTUN_HEADER_MAX);
	skb_put_data(skb, nla_data(attr), length);
	skb->protocol = htons(ETH_P_IPV6);
	skb_reset_mac_header(skb);
	skb_reset_network_header(skb);
	return skb;
}

/* The packet is consumed. */
static int mtun_netlink_execute_out(struct mtun_device *mtun, struct mtun_path *path,
				    struct sk_buff *skb, const struct mtun_inner *inner)
{
	enum mtun_reason reason;

	skb->dev = mtun->dev;
	skb_set_transport_header(skb, inner->upper_at);
	local_bh_disable();
	rcu_read_lock();
	reason = mtun_encap_output(mtun, path, skb, inner, 0);
	if (reason == MTUN_REASON_OUT_HIT)
		mtun_count(mtun, MTUN_REASON_OUT_EXECUTED);
	rcu_read_unlock();
	local_bh_enable();
	if (reason == MTUN_REASON_OUT_HIT)
		return 0;
	mtun_count(mtun, reason);
	kfree_skb(skb);
	return -EINVAL;
}

/* What the one who read the packet was told of it beside its octets. */
static int mtun_netlink_vnet(struct sk_buff *skb, struct genl_info *info)
{
	struct virtio_net_hdr header;

	if (!info->attrs[MTUN_A_VNET])
		return 0;
	nla_memcpy(&header, info->attrs[MTUN_A_VNET], sizeof(header));
	if (!virtio_net_hdr_to_skb(skb, &header, virtio_legacy_is_little_endian()))
		return 0;
	NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_VNET],
			    "vnet: does not describe this packet");
	return -EINVAL;
}

static int mtun_netlink_execute(struct sk_buff *request, struct genl_info *info)
{
	struct mtun_path *path = NULL;
	struct mtun_device *mtun;
	struct mtun_inner inner;
	struct sk_buff *skb;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_DIRECTION) ||
	    GENL_REQ_ATTR_CHECK(info, MTUN_A_PACKET)) {
		NL_SET_ERR_MSG(info->extack, "direction or packet is missing");
		return -EINVAL;
	}
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	if (!(mtun->dev->flags & IFF_UP)) {
		err = -ENETDOWN;
		goto unlock;
	}
	if (nla_get_u8(info->attrs[MTUN_A_DIRECTION]) == MTUN_DIRECTION_OUT) {
		path = mtun_netlink_path(mtun, info);
		err = PTR_ERR_OR_ZERO(path);
		if (err)
			goto unlock;
	}
	err = -ENOMEM;
	skb = mtun_netlink_packet(info->attrs[MTUN_A_PACKET]);
	if (!skb)
		goto unlock;
	err = 0;
	/* Fragments and odd chains may go, since user space has judged them; lies may not. */
	switch (mtun_encap_parse(skb, &inner)) {
	case MTUN_PARSE_VERSION:
	case MTUN_PARSE_LENGTH:
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_PACKET],
				    "packet: not one whole IPv6 packet");
		kfree_skb(skb);
		err = -EINVAL;
		break;
	default:
		if (path) {
			err = mtun_netlink_execute_out(mtun, path, skb, &inner);
			break;
		}
		err = mtun_netlink_vnet(skb, info);
		if (err) {
			kfree_skb(skb);
			break;
		}
		local_bh_disable();
		mtun_count(mtun, MTUN_REASON_IN_EXECUTED);
		mtun_decap_deliver(mtun, skb);
		local_bh_enable();
	}
unlock:
	mtun_device_unlock(mtun);
	return err;
}

static int mtun_netlink_link(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_device *mtun;
	u32 link;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_LINK)) {
		NL_SET_ERR_MSG(info->extack, "link is missing");
		return -EINVAL;
	}
	link = nla_get_u32(info->attrs[MTUN_A_LINK]);
	/* Links go with notice, so that nobody attaches to one that is going. */
	rtnl_lock();
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun)) {
		err = PTR_ERR(mtun);
		goto unlock;
	}
	err = mtun_netlink_may_use_links(skb, mtun, info);
	if (!err)
		err = info->genlhdr->cmd == MTUN_CMD_LINK_ATTACH ?
			mtun_ingress_attach(mtun, link, info->extack) :
			mtun_ingress_detach(mtun, link);
	mtun_device_unlock(mtun);
unlock:
	rtnl_unlock();
	return err;
}

#define MTUN_OP(command, function, policy_name)				\
	{ .cmd = command, .doit = function, .policy = mtun_policy_##policy_name, \
	  .maxattr = MTUN_A_MAX, .flags = GENL_UNS_ADMIN_PERM }

static const struct genl_ops mtun_netlink_ops[] = {
	MTUN_OP(MTUN_CMD_DEVICE_SET, mtun_netlink_device_set, device),
	MTUN_OP(MTUN_CMD_DEVICE_GET, mtun_netlink_device_get, only_device),
	MTUN_OP(MTUN_CMD_PATH_ADD, mtun_netlink_path_add, path_new),
	MTUN_OP(MTUN_CMD_PATH_UPDATE, mtun_netlink_path_update, path_change),
	MTUN_OP(MTUN_CMD_PATH_DELETE, mtun_netlink_path_delete, path),
	{ .cmd = MTUN_CMD_PATH_GET, .doit = mtun_netlink_path_get,
	  .dumpit = mtun_netlink_path_dump, .policy = mtun_policy_path, .maxattr = MTUN_A_MAX,
	  .flags = GENL_UNS_ADMIN_PERM },
	MTUN_OP(MTUN_CMD_GENERATION_SET, mtun_netlink_generation_set, generation),
	MTUN_OP(MTUN_CMD_FLOW_ADD, mtun_netlink_flow_add, flow),
	MTUN_OP(MTUN_CMD_FLOW_DELETE, mtun_netlink_flow_delete, flow_key),
	MTUN_OP(MTUN_CMD_FLOW_FLUSH, mtun_netlink_flow_flush, filter),
	{ .cmd = MTUN_CMD_FLOW_GET, .dumpit = mtun_netlink_flow_dump,
	  .policy = mtun_policy_only_device, .maxattr = MTUN_A_MAX,
	  .flags = GENL_UNS_ADMIN_PERM },
	MTUN_OP(MTUN_CMD_COUNTERS_GET, mtun_netlink_counters_get, only_device),
	MTUN_OP(MTUN_CMD_LISTEN, mtun_netlink_listen, only_device),
	MTUN_OP(MTUN_CMD_EXECUTE, mtun_netlink_execute, execute),
	MTUN_OP(MTUN_CMD_LINK_ATTACH, mtun_netlink_link, link),
	MTUN_OP(MTUN_CMD_LINK_DETACH, mtun_netlink_link, link),
};

struct genl_family mtun_netlink_family __ro_after_init = {
	.name = MTUN_GENL_NAME,
	.version = MTUN_GENL_VERSION,
	.maxattr = MTUN_A_MAX,
	.netnsok = true,
	.parallel_ops = true,
	.module = THIS_MODULE,
	.ops = mtun_netlink_ops,
	.n_ops = ARRAY_SIZE(mtun_netlink_ops),
	.resv_start_op = 1,
};

int __init mtun_netlink_register(void)
{
	return genl_register_family(&mtun_netlink_family);
}

void mtun_netlink_unregister(void)
{
	genl_unregister_family(&mtun_netlink_family);
}
