// SPDX-License-Identifier: GPL-2.0-only
/*
 * The network device: link kind "mtun", its life, its figures.
 *
 * It stays tied to the namespace it was made in, where its uplinks are; the device itself may
 * live in another one. It goes when either of them goes.
 */
#include <linux/ethtool.h>
#include <linux/if_arp.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/ip6_tunnel.h>
#include <net/rtnetlink.h>

#include "compat.h"
#include "mtun.h"

/* All devices, for those who do not come with a namespace of uplinks. */
static LIST_HEAD(mtun_devices);
static DEFINE_MUTEX(mtun_devices_lock);

static const char mtun_reason_names[__MTUN_REASON_COUNT][ETH_GSTRING_LEN] = {
	[MTUN_REASON_OUT_HIT] = "out-hit",
	[MTUN_REASON_IN_HIT] = "in-hit",
	[MTUN_REASON_OUT_EXECUTED] = "out-executed",
	[MTUN_REASON_IN_EXECUTED] = "in-executed",
	[MTUN_REASON_MISS] = "up-miss",
	[MTUN_REASON_STALE] = "up-stale",
	[MTUN_REASON_PATH_GONE] = "up-path-gone",
	[MTUN_REASON_LEASE] = "up-lease",
	[MTUN_REASON_SILENT] = "up-silent",
	[MTUN_REASON_FRAGMENT] = "up-fragment",
	[MTUN_REASON_VERSION] = "up-version",
	[MTUN_REASON_LENGTH] = "up-length",
	[MTUN_REASON_HEADERS] = "up-headers",
	[MTUN_REASON_HOP_LIMIT] = "up-hop-limit",
	[MTUN_REASON_ENCAPSULATION_LIMIT] = "up-encapsulation-limit",
	[MTUN_REASON_ENCAPSULATION] = "up-encapsulation",
	[MTUN_REASON_OUTER] = "up-outer",
	[MTUN_REASON_NO_DAEMON] = "drop-no-daemon",
	[MTUN_REASON_QUEUE_FULL] = "drop-queue-full",
	[MTUN_REASON_NO_ROUTE] = "drop-no-route",
	[MTUN_REASON_TOO_BIG] = "drop-too-big",
	[MTUN_REASON_CONGESTION] = "drop-congestion",
	[MTUN_REASON_NO_MEMORY] = "drop-no-memory",
	[MTUN_REASON_NOT_SENT] = "drop-not-sent",
};

/* The device of that number, locked and kept; an error if there is none. */
struct mtun_device *mtun_device_lock(struct net *net, u32 ifindex)
{
	struct net_device *dev = dev_get_by_index(net, ifindex);
	struct mtun_device *mtun;

	if (!dev)
		return ERR_PTR(-ENODEV);
	if (dev->rtnl_link_ops != &mtun_link_ops) {
		dev_put(dev);
		return ERR_PTR(-EOPNOTSUPP);
	}
	mtun = netdev_priv(dev);
	mutex_lock(&mtun->lock);
	if (!mtun->alive) {
		mtun_device_unlock(mtun);
		return ERR_PTR(-ENODEV);
	}
	return mtun;
}

void mtun_device_unlock(struct mtun_device *mtun)
{
	mutex_unlock(&mtun->lock);
	dev_put(mtun->dev);
}

void mtun_device_counters(struct mtun_device *mtun, u64 sum[__MTUN_REASON_COUNT])
{
	unsigned int start, reason;
	int cpu;

	memset(sum, 0, __MTUN_REASON_COUNT * sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct mtun_counters *counters = per_cpu_ptr(mtun->counters, cpu);
		u64 here[__MTUN_REASON_COUNT];

		do {
			start = u64_stats_fetch_begin(&counters->sync);
			for (reason = 0; reason < __MTUN_REASON_COUNT; reason++)
				here[reason] = u64_stats_read(&counters->reason[reason]);
		} while (u64_stats_fetch_retry(&counters->sync, start));
		for (reason = 0; reason < __MTUN_REASON_COUNT; reason++)
			sum[reason] += here[reason];
	}
}

/* From where a packet that leaves came, as its key calls it. Under RCU. */
u32 mtun_device_ingress(const struct mtun_device *mtun, const struct sk_buff *skb)
{
	const struct mtun_doors *doors = rcu_dereference(mtun->doors);
	u32 i, link = skb->skb_iif;

	if (!doors || !link)
		return link;
	for (i = 0; i < doors->count; i++)
		if (doors->at[i].link == link)
			return doors->at[i].ingress;
	return 1;
}

int mtun_device_doors(struct mtun_device *mtun, const struct mtun_door *at, u32 count)
{
	struct mtun_doors *old = rcu_dereference_protected(mtun->doors,
							   lockdep_is_held(&mtun->lock));
	struct mtun_doors *doors = kzalloc(struct_size(doors, at, count), GFP_KERNEL_ACCOUNT);

	if (!doors)
		return -ENOMEM;
	doors->count = count;
	memcpy(doors->at, at, count * sizeof(*at));
	rcu_assign_pointer(mtun->doors, doors);
	if (old)
		kfree_rcu(old, rcu);
	return 0;
}

/* Flows hold for so long from here on. */
void mtun_device_lease(struct mtun_device *mtun, u32 milliseconds)
{
	WRITE_ONCE(mtun->lease_until, (u32)jiffies + (u32)msecs_to_jiffies(milliseconds));
	/* Whoever sees that it is held sees until when. */
	smp_store_release(&mtun->lease, milliseconds ? MTUN_LEASE_HELD : MTUN_LEASE_OVER);
}

/* A socket was closed: its number may be somebody else's from here on. */
void mtun_device_listener_gone(const struct net *net, u32 port)
{
	struct mtun_device *mtun;

	mutex_lock(&mtun_devices_lock);
	list_for_each_entry(mtun, &mtun_devices, everywhere)
		if (READ_ONCE(mtun->listener) == port && net_eq(dev_net(mtun->dev), net)) {
			WRITE_ONCE(mtun->listener, 0);
			/* Nobody vouches any more. */
			cmpxchg(&mtun->lease, MTUN_LEASE_HELD, MTUN_LEASE_OVER);
		}
	mutex_unlock(&mtun_devices_lock);
}

/* What a namespace of uplinks needs from its first device on. */
static int mtun_device_first(struct net *net)
{
	struct mtun_net *mn = mtun_net(net);
	struct mtun_outer_hash *hash;
	int err;

	ASSERT_RTNL();
	if (mn->hash)
		return 0;
	hash = kvzalloc(sizeof(*hash), GFP_KERNEL_ACCOUNT);
	if (!hash)
		return -ENOMEM;
	err = mtun_optimized_register(net);
	if (err) {
		kvfree(hash);
		return err;
	}
	/* Readers take no lock and come before or after. */
	smp_store_release(&mn->hash, hash);
	return 0;
}

static int mtun_device_init(struct net_device *dev)
{
	struct mtun_device *mtun = netdev_priv(dev);
	struct mtun_flow_table *table;
	int err = -ENOMEM;
	int cpu;

	dev->tstats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	if (!dev->tstats)
		return -ENOMEM;
	mtun->counters = alloc_percpu(struct mtun_counters);
	if (!mtun->counters)
		goto free_stats;
	for_each_possible_cpu(cpu)
		u64_stats_init(&per_cpu_ptr(mtun->counters, cpu)->sync);
	table = rtnl_dereference(mtun->table);
	if (!table)
		goto free_counters;
	err = mtun_device_first(mtun->net);
	if (err)
		goto free_counters;
	err = gro_cells_init(&mtun->cells, dev);
	if (err)
		goto free_counters;

	mutex_lock(&mtun->lock);
	mtun->alive = true;
	mutex_unlock(&mtun->lock);
	list_add(&mtun->list, &mtun_net(mtun->net)->devices);
	mutex_lock(&mtun_devices_lock);
	list_add(&mtun->everywhere, &mtun_devices);
	mutex_unlock(&mtun_devices_lock);
	queue_delayed_work(mtun_workqueue, &mtun->age_work, HZ);
	return 0;

free_counters:
	free_percpu(mtun->counters);
free_stats:
	free_percpu(dev->tstats);
	dev->tstats = NULL;
	return err;
}

static void mtun_device_uninit(struct net_device *dev)
{
	struct mtun_device *mtun = netdev_priv(dev);

	mutex_lock(&mtun_devices_lock);
	list_del(&mtun->everywhere);
	mutex_unlock(&mtun_devices_lock);
	list_del(&mtun->list);

	mutex_lock(&mtun->lock);
	mtun->alive = false;
	WRITE_ONCE(mtun->listener, 0);
	mtun_ingress_flush(mtun);
	mtun_path_flush(mtun);
	mutex_unlock(&mtun->lock);
	/* From here on no packet finds the way in; the way out was closed before. */
	synchronize_net();
	cancel_delayed_work_sync(&mtun->age_work);
	cancel_work_sync(&mtun->miss_work);
	skb_queue_purge(&mtun->misses);
	mutex_lock(&mtun->lock);
	mtun_flow_table_free(mtun);
	mutex_unlock(&mtun->lock);
}

static void mtun_device_free(struct net_device *dev)
{
	struct mtun_device *mtun = netdev_priv(dev);

	gro_cells_destroy(&mtun->cells);
	free_percpu(mtun->counters);
	free_percpu(dev->tstats);
	/* No packet is under way any more. */
	kfree(rcu_dereference_protected(mtun->doors, true));
	xa_destroy(&mtun->paths);
	xa_destroy(&mtun->registrations);
}

/* No link-local address: no router solicitations, no multicast reports, no redirects. */
static int mtun_device_open(struct net_device *dev)
{
	struct inet6_dev *idev = __in6_dev_get(dev);

	if (idev)
		idev->cnf.addr_gen_mode = IN6_ADDR_GEN_MODE_NONE;
	return 0;
}

static const struct net_device_ops mtun_device_ops = {
	.ndo_open = mtun_device_open,
	.ndo_init = mtun_device_init,
	.ndo_uninit = mtun_device_uninit,
	.ndo_start_xmit = mtun_encap_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
};

static void mtun_device_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, "mtun", sizeof(info->driver));
	strscpy(info->version, THIS_MODULE->version, sizeof(info->version));
}

static int mtun_device_sset_count(struct net_device *dev, int sset)
{
	return sset == ETH_SS_STATS ? __MTUN_REASON_COUNT : -EOPNOTSUPP;
}

static void mtun_device_strings(struct net_device *dev, u32 sset, u8 *data)
{
	if (sset == ETH_SS_STATS)
		memcpy(data, mtun_reason_names, sizeof(mtun_reason_names));
}

static void mtun_device_ethtool_stats(struct net_device *dev, struct ethtool_stats *stats,
				      u64 *data)
{
	mtun_device_counters(netdev_priv(dev), data);
}

static const struct ethtool_ops mtun_device_ethtool_ops = {
	.get_drvinfo = mtun_device_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_sset_count = mtun_device_sset_count,
	.get_strings = mtun_device_strings,
	.get_ethtool_stats = mtun_device_ethtool_stats,
};

static const struct device_type mtun_device_type = { .name = "mtun" };

static void mtun_device_setup(struct net_device *dev)
{
	const netdev_features_t features = NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HIGHDMA |
					   NETIF_F_HW_CSUM | NETIF_F_GSO_SOFTWARE |
					   NETIF_F_GSO_IPXIP6;
	struct mtun_device *mtun = netdev_priv(dev);

	mtun->dev = dev;
	mtun->flow_idle = MTUN_FLOW_IDLE;
	mtun->miss_limit = MTUN_MISS_LIMIT;
	mutex_init(&mtun->lock);
	xa_init(&mtun->paths);
	xa_init(&mtun->registrations);
	skb_queue_head_init(&mtun->misses);
	INIT_LIST_HEAD(&mtun->ingresses);
	INIT_WORK(&mtun->miss_work, mtun_miss_work);
	INIT_DELAYED_WORK(&mtun->age_work, mtun_flow_age);

	dev->netdev_ops = &mtun_device_ops;
	dev->ethtool_ops = &mtun_device_ethtool_ops;
	dev->needs_free_netdev = true;
	dev->priv_destructor = mtun_device_free;
	dev->type = ARPHRD_NONE;
	dev->flags = IFF_NOARP | IFF_POINTOPOINT;
	dev->mtu = ETH_DATA_LEN - MTUN_IPV6_HEADER;
	dev->min_mtu = IPV6_MIN_MTU;
	dev->max_mtu = 0xffff - MTUN_HEADER_MAX;
	dev->needed_headroom = LL_MAX_HEADER + MTUN_HEADER_MAX;
	dev->tx_queue_len = 0;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->features |= features;
	dev->hw_features |= features;
	dev->hw_enc_features |= features;
	dev->vlan_features |= features;
	mtun_compat_lockless(dev);
	SET_NETDEV_DEVTYPE(dev, &mtun_device_type);
	netif_keep_dst(dev);
}

static struct netlink_range_validation mtun_flow_limit_range = {
	.min = 1, .max = MTUN_FLOW_LIMIT_MAX,
};

static struct netlink_range_validation mtun_flow_idle_range = {
	.min = 1, .max = MTUN_FLOW_IDLE_MAX,
};

static struct netlink_range_validation mtun_miss_limit_range = {
	.min = 1, .max = MTUN_MISS_LIMIT_MAX,
};

static const struct nla_policy mtun_device_policy[IFLA_MTUN_MAX + 1] = {
	[IFLA_MTUN_FLOW_LIMIT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_flow_limit_range),
	[IFLA_MTUN_FLOW_IDLE] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_flow_idle_range),
	[IFLA_MTUN_MISS_LIMIT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mtun_miss_limit_range),
};

static int mtun_device_newlink(struct net *src_net, struct net_device *dev, struct nlattr *tb[],
			       struct nlattr *data[], struct netlink_ext_ack *extack)
{
	struct mtun_device *mtun = netdev_priv(dev);
	u32 limit = MTUN_FLOW_LIMIT;
	struct mtun_flow_table *table;
	int err;

	mtun->net = src_net;
	if (data && data[IFLA_MTUN_FLOW_LIMIT])
		limit = nla_get_u32(data[IFLA_MTUN_FLOW_LIMIT]);
	if (data && data[IFLA_MTUN_FLOW_IDLE])
		mtun->flow_idle = nla_get_u32(data[IFLA_MTUN_FLOW_IDLE]);
	if (data && data[IFLA_MTUN_MISS_LIMIT])
		mtun->miss_limit = nla_get_u32(data[IFLA_MTUN_MISS_LIMIT]);
	table = mtun_flow_table_new(limit);
	if (!table)
		return -ENOMEM;
	rcu_assign_pointer(mtun->table, table);
	err = register_netdevice(dev);
	if (err && rcu_access_pointer(mtun->table))
		kvfree(rtnl_dereference(mtun->table));
	return err;
}

static size_t mtun_device_get_size(const struct net_device *dev)
{
	return 5 * nla_total_size(sizeof(u32));
}

static int mtun_device_fill_info(struct sk_buff *skb, const struct net_device *dev)
{
	const struct mtun_device *mtun = netdev_priv(dev);
	const struct mtun_flow_table *table;
	u32 limit;

	/* A new table does not wait for RTNL. */
	rcu_read_lock();
	table = rcu_dereference(mtun->table);
	limit = table ? table->limit : 0;
	rcu_read_unlock();
	if (nla_put_u32(skb, IFLA_MTUN_FLOW_LIMIT, limit) ||
	    nla_put_u32(skb, IFLA_MTUN_FLOW_IDLE, mtun->flow_idle) ||
	    nla_put_u32(skb, IFLA_MTUN_MISS_LIMIT, mtun->miss_limit) ||
	    nla_put_u32(skb, IFLA_MTUN_FLOWS, mtun->flows) ||
	    nla_put_u32(skb, IFLA_MTUN_PATHS, mtun->path_count))
		return -EMSGSIZE;
	return 0;
}

static struct net *mtun_device_link_net(const struct net_device *dev)
{
	return ((const struct mtun_device *)netdev_priv(dev))->net;
}

struct rtnl_link_ops mtun_link_ops __read_mostly = {
	.kind = "mtun",
	.maxtype = IFLA_MTUN_MAX,
	.policy = mtun_device_policy,
	.priv_size = sizeof(struct mtun_device),
	.setup = mtun_device_setup,
	.newlink = mtun_device_newlink,
	.get_size = mtun_device_get_size,
	.fill_info = mtun_device_fill_info,
	.get_link_net = mtun_device_link_net,
};
