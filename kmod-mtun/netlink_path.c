// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: paths and generations. */
#include <net/addrconf.h>
#include <net/genetlink.h>

#include "compat.h"
#include "mtun.h"

/* The path a message names. */
struct mtun_path *mtun_netlink_path(struct mtun_device *mtun, struct genl_info *info)
{
	struct mtun_path *path;

	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_PATH)) {
		NL_SET_ERR_MSG(info->extack, "path is missing");
		return ERR_PTR(-EINVAL);
	}
	path = xa_load(&mtun->paths, nla_get_u32(info->attrs[MTUN_A_PATH]));
	if (!path) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_PATH], "path: no such path");
		return ERR_PTR(-ENOENT);
	}
	return path;
}

/* The uplinks may belong to somebody else than the namespace the device was moved to. */
int mtun_netlink_may_use_links(struct sk_buff *skb, const struct mtun_device *mtun,
			       struct genl_info *info)
{
	if (netlink_ns_capable(skb, mtun->net->user_ns, CAP_NET_ADMIN))
		return 0;
	NL_SET_ERR_MSG(info->extack, "no rights over the namespace of the uplinks");
	return -EPERM;
}

static bool mtun_netlink_unicast(const struct in6_addr *address)
{
	return !(ipv6_addr_type(address) & IPV6_ADDR_MULTICAST) && !ipv6_addr_any(address) &&
	       !ipv6_addr_loopback(address);
}

/* Writes what the message says over what the path has. */
static int mtun_netlink_config(struct genl_info *info, struct mtun_path_config *config)
{
	struct nlattr **attrs = info->attrs;

	if (attrs[MTUN_A_LOCAL]) {
		config->local = nla_get_in6_addr(attrs[MTUN_A_LOCAL]);
		if (!mtun_netlink_unicast(&config->local)) {
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[MTUN_A_LOCAL],
					    "local: not an address of a link");
			return -EINVAL;
		}
	}
	if (attrs[MTUN_A_REMOTE]) {
		config->remote = nla_get_in6_addr(attrs[MTUN_A_REMOTE]);
		if (!mtun_netlink_unicast(&config->remote)) {
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[MTUN_A_REMOTE],
					    "remote: not a unicast address");
			return -EINVAL;
		}
	}
	if (attrs[MTUN_A_NEXT_HOP]) {
		config->next_hop = nla_get_in6_addr(attrs[MTUN_A_NEXT_HOP]);
		if (ipv6_addr_is_multicast(&config->next_hop)) {
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[MTUN_A_NEXT_HOP],
					    "next hop: not a unicast address");
			return -EINVAL;
		}
	}
	if (attrs[MTUN_A_MTU]) {
		config->mtu = nla_get_u32(attrs[MTUN_A_MTU]);
		if (config->mtu && config->mtu < IPV6_MIN_MTU) {
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[MTUN_A_MTU],
					    "mtu: below 1280, which every IPv6 link takes");
			return -EINVAL;
		}
	}
	if (attrs[MTUN_A_LINK])
		config->link = nla_get_u32(attrs[MTUN_A_LINK]);
	if (attrs[MTUN_A_HOP_LIMIT])
		config->hop_limit = nla_get_u8(attrs[MTUN_A_HOP_LIMIT]);
	if (attrs[MTUN_A_MARK])
		config->mark = nla_get_u32(attrs[MTUN_A_MARK]);
	if (attrs[MTUN_A_ENCAPSULATION])
		config->encapsulation = nla_get_u8(attrs[MTUN_A_ENCAPSULATION]);
	return 0;
}

int mtun_netlink_path_add(struct sk_buff *skb, struct genl_info *info)
{
	static const struct { int attribute; const char *missing; } needed[] = {
		{ MTUN_A_PATH, "path is missing" },
		{ MTUN_A_REGISTRATION, "registration is missing" },
		{ MTUN_A_LOCAL, "local is missing" },
		{ MTUN_A_REMOTE, "remote is missing" },
		{ MTUN_A_LINK, "link is missing" },
	};
	struct mtun_path_config config = {};
	struct nlattr **attrs = info->attrs;
	struct mtun_device *mtun;
	unsigned int i;
	u32 id;
	int err;

	for (i = 0; i < ARRAY_SIZE(needed); i++) {
		if (GENL_REQ_ATTR_CHECK(info, needed[i].attribute)) {
			if (info->extack)
				info->extack->_msg = needed[i].missing;
			return -EINVAL;
		}
	}
	err = mtun_netlink_config(info, &config);
	if (err)
		return err;
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	id = nla_get_u32(attrs[MTUN_A_PATH]);
	err = mtun_netlink_may_use_links(skb, mtun, info);
	if (err)
		goto unlock;
	if (xa_load(&mtun->paths, id)) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[MTUN_A_PATH], "path: exists");
		err = -EEXIST;
	} else {
		err = mtun_path_add(mtun, id, nla_get_u32(attrs[MTUN_A_REGISTRATION]),
				    attrs[MTUN_A_GENERATION] ?
					nla_get_u64(attrs[MTUN_A_GENERATION]) : 0,
				    &config, info->extack);
	}
unlock:
	mtun_device_unlock(mtun);
	return err;
}

static void mtun_netlink_present(struct mtun_path *path, struct mtun_path_config *config)
{
	const struct mtun_path_entry *entry =
		rcu_dereference_protected(path->entry, lockdep_is_held(&path->mtun->lock));

	*config = (struct mtun_path_config) {
		.local = entry->local,
		.remote = entry->remote,
		.next_hop = entry->next_hop,
		.link = entry->link,
		.mtu = entry->mtu,
		.mark = entry->mark,
		.hop_limit = entry->hop_limit,
		.encapsulation = entry->encapsulation,
	};
}

int mtun_netlink_path_update(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_device *mtun = mtun_netlink_device(info);
	struct mtun_path_config config;
	struct mtun_path *path;
	int err;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	path = mtun_netlink_path(mtun, info);
	err = PTR_ERR_OR_ZERO(path) ?: mtun_netlink_may_use_links(skb, mtun, info);
	if (!err) {
		mtun_netlink_present(path, &config);
		err = mtun_netlink_config(info, &config);
	}
	if (!err)
		err = mtun_path_update(path, &config, info->extack);
	mtun_device_unlock(mtun);
	return err;
}

int mtun_netlink_path_delete(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_device *mtun = mtun_netlink_device(info);
	struct mtun_path *path;
	int err;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	path = mtun_netlink_path(mtun, info);
	err = PTR_ERR_OR_ZERO(path);
	if (!err)
		mtun_path_delete(path);
	mtun_device_unlock(mtun);
	return err;
}

static void mtun_netlink_path_sum(struct mtun_path *path, u64 sum[4])
{
	int cpu;

	memset(sum, 0, 4 * sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct pcpu_sw_netstats *stats = per_cpu_ptr(path->stats, cpu);
		unsigned int start;
		u64 here[4];

		do {
			start = u64_stats_fetch_begin(&stats->syncp);
			here[0] = u64_stats_read(&stats->tx_packets);
			here[1] = u64_stats_read(&stats->tx_bytes);
			here[2] = u64_stats_read(&stats->rx_packets);
			here[3] = u64_stats_read(&stats->rx_bytes);
		} while (u64_stats_fetch_retry(&stats->syncp, start));
		sum[0] += here[0];
		sum[1] += here[1];
		sum[2] += here[2];
		sum[3] += here[3];
	}
}

static int mtun_netlink_path_fill(struct sk_buff *msg, struct mtun_path *path)
{
	struct mtun_path_config config;
	u64 sum[4];

	mtun_netlink_present(path, &config);
	mtun_netlink_path_sum(path, sum);
	if (nla_put_u32(msg, MTUN_A_IFINDEX, path->mtun->dev->ifindex) ||
	    nla_put_u32(msg, MTUN_A_PATH, path->id) ||
	    nla_put_u32(msg, MTUN_A_REGISTRATION, path->registration->id) ||
	    nla_put_u64_64bit(msg, MTUN_A_GENERATION, path->registration->generation,
			      MTUN_A_PAD) ||
	    nla_put_in6_addr(msg, MTUN_A_LOCAL, &config.local) ||
	    nla_put_in6_addr(msg, MTUN_A_REMOTE, &config.remote) ||
	    nla_put_in6_addr(msg, MTUN_A_NEXT_HOP, &config.next_hop) ||
	    nla_put_u32(msg, MTUN_A_LINK, config.link) ||
	    nla_put_u32(msg, MTUN_A_MTU, config.mtu) ||
	    nla_put_u8(msg, MTUN_A_HOP_LIMIT, config.hop_limit) ||
	    nla_put_u32(msg, MTUN_A_MARK, config.mark) ||
	    nla_put_u8(msg, MTUN_A_ENCAPSULATION, config.encapsulation) ||
	    nla_put_u32(msg, MTUN_A_FLOWS, path->flows) ||
	    nla_put_u64_64bit(msg, MTUN_A_PACKETS, sum[0], MTUN_A_PAD) ||
	    nla_put_u64_64bit(msg, MTUN_A_OCTETS, sum[1], MTUN_A_PAD) ||
	    nla_put_u64_64bit(msg, MTUN_A_IN_PACKETS, sum[2], MTUN_A_PAD) ||
	    nla_put_u64_64bit(msg, MTUN_A_IN_OCTETS, sum[3], MTUN_A_PAD))
		return -EMSGSIZE;
	return 0;
}

int mtun_netlink_path_get(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_device *mtun = mtun_netlink_device(info);
	struct mtun_path *path;
	struct sk_buff *msg;
	void *head;
	int err;

	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	path = mtun_netlink_path(mtun, info);
	err = PTR_ERR_OR_ZERO(path);
	if (err) {
		mtun_device_unlock(mtun);
		return err;
	}
	err = -ENOMEM;
	msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (msg) {
		head = genlmsg_put_reply(msg, info, &mtun_netlink_family, 0, MTUN_CMD_PATH_GET);
		err = head ? mtun_netlink_path_fill(msg, path) : -EMSGSIZE;
		if (!err)
			genlmsg_end(msg, head);
	}
	mtun_device_unlock(mtun);
	if (err) {
		nlmsg_free(msg);
		return err;
	}
	return genlmsg_reply(msg, info);
}

/* cb->args[0]: the next number to look at. */
int mtun_netlink_path_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct nlattr *ifindex = mtun_compat_dump_attrs(cb)[MTUN_A_IFINDEX];
	struct mtun_device *mtun;
	struct mtun_path *path;
	unsigned long id;
	void *head;

	if (!ifindex) {
		NL_SET_ERR_MSG(cb->extack, "ifindex is missing");
		return -EINVAL;
	}
	mtun = mtun_device_lock(sock_net(skb->sk), nla_get_u32(ifindex));
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	/* A change in between is told by NLM_F_DUMP_INTR. */
	cb->seq = mtun->changes + 1;
	xa_for_each_start(&mtun->paths, id, path, cb->args[0]) {
		head = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				   &mtun_netlink_family, NLM_F_MULTI, MTUN_CMD_PATH_GET);
		if (!head)
			break;
		genl_dump_check_consistent(cb, head);
		if (mtun_netlink_path_fill(skb, path)) {
			genlmsg_cancel(skb, head);
			break;
		}
		genlmsg_end(skb, head);
		cb->args[0] = id + 1;
	}
	mtun_device_unlock(mtun);
	return skb->len;
}

int mtun_netlink_generation_set(struct sk_buff *skb, struct genl_info *info)
{
	struct mtun_registration *registration;
	struct mtun_device *mtun;
	u64 generation;
	int err = 0;

	if (GENL_REQ_ATTR_CHECK(info, MTUN_A_REGISTRATION) ||
	    GENL_REQ_ATTR_CHECK(info, MTUN_A_GENERATION)) {
		NL_SET_ERR_MSG(info->extack, "registration or generation is missing");
		return -EINVAL;
	}
	mtun = mtun_netlink_device(info);
	if (IS_ERR(mtun))
		return PTR_ERR(mtun);
	generation = nla_get_u64(info->attrs[MTUN_A_GENERATION]);
	registration = xa_load(&mtun->registrations,
			       nla_get_u32(info->attrs[MTUN_A_REGISTRATION]));
	if (!registration) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_REGISTRATION],
				    "registration: no path names it");
		err = -ENOENT;
	} else if (generation < registration->generation) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[MTUN_A_GENERATION],
				    "generation: never falls");
		err = -EINVAL;
	} else {
		WRITE_ONCE(registration->generation, generation);
	}
	mtun_device_unlock(mtun);
	return err;
}
