/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The nouns of the module.
 *
 *   device --- table of flows ---> path --- entry (outer addresses, link, next hop)
 *                                   |
 *                                   +---- registration (generation)
 *
 * Locks. Everything that changes a device's tables happens in process context under its `lock`,
 * which nests inside RTNL. The packet path takes no lock: it reads under RCU. The hash of
 * outer addresses belongs to the network namespace of the uplinks and has a lock of its own,
 * taken inside the device's.
 */
#ifndef MTUN_H
#define MTUN_H

#include <linux/hashtable.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <net/dst_cache.h>
#include <net/gro_cells.h>
#include <net/netns/generic.h>

#include "header.h"
#include "key.h"
#include "uapi/mtun.h"

#define MTUN_FLOW_LIMIT 131072u		/* flows, unless the link says otherwise */
#define MTUN_FLOW_LIMIT_MAX (4u << 20)
#define MTUN_FLOW_IDLE 60u		/* seconds */
#define MTUN_FLOW_IDLE_MAX 86400u
#define MTUN_MISS_LIMIT 256u		/* packets */
#define MTUN_MISS_LIMIT_MAX 65536u
#define MTUN_PATH_LIMIT 65536u
#define MTUN_HOP_LIMIT 64
#define MTUN_OUTER_BITS 12
#define MTUN_DOOR_LIMIT 255u
#define MTUN_LEASE_MAX 3600000u		/* milliseconds */
#define MTUN_LASTS_UNIT 20u		/* milliseconds */
#define MTUN_LASTS_MAX (0xfffu * MTUN_LASTS_UNIT)

/* Which generation of decisions holds for one registration. Lives as long as a path of it. */
struct mtun_registration {
	u64 generation;
	u32 id;
	u32 paths;		/* that name it, deleted ones too; under the device's lock */
	u32 live;		/* of these, the ones not deleted */
	struct rcu_head rcu;
};

struct mtun_path;

/* Where a path leads at present. Never changed, only replaced: a handover is one store. */
struct mtun_path_entry {
	struct hlist_node by_outer;	/* in mtun_net */
	struct hlist_node by_local;
	struct mtun_path *path;
	struct in6_addr local;
	struct in6_addr remote;
	struct in6_addr next_hop;
	struct dst_entry *next_hop_dst;	/* when a next hop is given */
	struct dst_cache cache;		/* else what the routing table said */
	u32 link;
	u32 mtu;
	u32 mark;
	u8 hop_limit;
	u8 encapsulation;
	bool link_gone;			/* the uplink was removed; for good */
	struct rcu_head rcu;
};

/* What flows point to. Outlives its deletion until the last flow is forgotten. */
struct mtun_path {
	struct mtun_path_entry __rcu *entry;	/* NULL once deleted */
	struct mtun_registration *registration;
	struct mtun_device *mtun;
	struct pcpu_sw_netstats __percpu *stats;
	refcount_t refs;		/* itself and its flows; under the device's lock */
	u32 id;
	u32 flows;
	struct rcu_head rcu;
};

/* One remembered decision: 128 octets. */
struct mtun_flow {
	struct hlist_node node;
	struct rcu_head rcu;
	struct mtun_key key;		/* masked */
	struct mtun_path *path;
	u64 generation;
	atomic_long_t packets;
	atomic_long_t octets;
	u32 used;			/* jiffies of the last packet */
	u32 label : 20;			/* of the outer header; 0: made from the packet */
	u32 lasts : 12;			/* MTUN_LASTS_UNITs; 0: for ever */
};

/* Masks and flows change together, so a reader never mixes two masks. */
struct mtun_flow_table {
	struct rcu_head rcu;
	struct mtun_key mask[__MTUN_DIRECTION_COUNT];
	u32 bits;
	u32 limit;
	struct hlist_head buckets[];
};

/* Which interfaces the key tells apart. */
struct mtun_doors {
	struct rcu_head rcu;
	u32 count;
	struct mtun_door at[];
};

/* Whether somebody has to vouch for what is remembered. */
enum mtun_lease {
	MTUN_LEASE_NONE,
	MTUN_LEASE_HELD,
	MTUN_LEASE_OVER,
};

struct mtun_counters {
	u64_stats_t reason[__MTUN_REASON_COUNT];
	struct u64_stats_sync sync;
};

struct mtun_device {
	struct net_device *dev;
	struct net *net;		/* of the uplinks: where the device was made */
	struct list_head list;		/* in mtun_net, under RTNL */
	struct list_head everywhere;	/* in mtun_devices */
	struct gro_cells cells;
	struct mtun_counters __percpu *counters;

	struct mutex lock;
	bool alive;			/* under lock: false from ndo_uninit on */
	struct mtun_flow_table __rcu *table;
	struct xarray paths;
	struct xarray registrations;
	u32 flows;
	u32 path_count;
	u32 flow_idle;
	u32 changes;			/* sequence for dumps */
	u32 age_bucket;
	struct delayed_work age_work;
	u32 lease;			/* enum mtun_lease */
	u32 lease_until;		/* jiffies, while it is held */
	struct mtun_doors __rcu *doors;
	struct list_head ingresses;	/* links that packets are taken from as they enter */

	struct sk_buff_head misses;
	struct work_struct miss_work;
	u32 miss_limit;
	u32 listener;			/* netlink port, 0: nobody */
};

/* Where received packets find their paths. Made with the first device of a namespace. */
struct mtun_outer_hash {
	struct rcu_head rcu;
	DECLARE_HASHTABLE(by_outer, MTUN_OUTER_BITS);
	DECLARE_HASHTABLE(by_local, MTUN_OUTER_BITS);
};

/* Per network namespace of uplinks. */
struct mtun_net {
	struct list_head devices;	/* under RTNL */
	spinlock_t lock;		/* for changes of the hash */
	struct mtun_outer_hash *hash;	/* under RCU; goes with the namespace */
};

extern unsigned int mtun_net_id;
extern struct workqueue_struct *mtun_workqueue;

static inline struct mtun_net *mtun_net(const struct net *net)
{
	return net_generic(net, mtun_net_id);
}

static inline void mtun_count(struct mtun_device *mtun, enum mtun_reason reason)
{
	struct mtun_counters *counters;

	local_bh_disable();
	counters = this_cpu_ptr(mtun->counters);
	u64_stats_update_begin(&counters->sync);
	u64_stats_inc(&counters->reason[reason]);
	u64_stats_update_end(&counters->sync);
	local_bh_enable();
}

/* device.c */
extern struct rtnl_link_ops mtun_link_ops;
struct mtun_device *mtun_device_lock(struct net *net, u32 ifindex);
void mtun_device_unlock(struct mtun_device *mtun);
void mtun_device_counters(struct mtun_device *mtun, u64 sum[__MTUN_REASON_COUNT]);
u32 mtun_device_ingress(const struct mtun_device *mtun, const struct sk_buff *skb);
int mtun_device_doors(struct mtun_device *mtun, const struct mtun_door *doors, u32 count);
void mtun_device_lease(struct mtun_device *mtun, u32 milliseconds);
void mtun_device_listener_gone(const struct net *net, u32 port);

/* flow.c: lookups under RCU, changes under mtun->lock */
void mtun_flow_init(void);
u32 mtun_flow_direction(const struct mtun_flow *flow);
struct mtun_flow *mtun_flow_lookup(const struct mtun_flow_table *table, u32 direction,
				   const struct mtun_key *key, const struct mtun_path *path);
enum mtun_reason mtun_flow_judge(const struct mtun_flow *flow);
/* What a packet counts for: of a superpacket, the packets that it stands for. */
struct mtun_load {
	u32 packets, octets;
};

struct mtun_load mtun_flow_load(const struct sk_buff *skb, const struct mtun_inner *inner);
void mtun_flow_touch(struct mtun_flow *flow, struct mtun_load load);
struct mtun_flow_table *mtun_flow_table_new(u32 limit);
void mtun_flow_table_free(struct mtun_device *mtun);
int mtun_flow_table_replace(struct mtun_device *mtun, u32 limit, const struct mtun_key *out,
			    const struct mtun_key *in);
int mtun_flow_add(struct mtun_device *mtun, u32 direction, const struct mtun_key *key,
		  struct mtun_path *path, u64 generation, u32 lasts, u32 label, bool exclusive);
/* The flow is given back: good until the end of the RCU period. */
struct mtun_flow *mtun_flow_delete(struct mtun_device *mtun, u32 direction,
				   const struct mtun_key *key, const struct mtun_path *path);

/* Which flows to flush: those that everything given describes. */
struct mtun_flow_filter {
	const struct mtun_key *key, *mask;
	const struct mtun_path *path;
	const u32 *registration;
	const u32 *direction;
};

u32 mtun_flow_flush(struct mtun_device *mtun, const struct mtun_flow_filter *filter);
void mtun_flow_age(struct work_struct *work);

/* path.c: changes under mtun->lock */
struct mtun_path_config {
	struct in6_addr local, remote, next_hop;
	u32 link, mtu, mark;
	u8 hop_limit, encapsulation;
};

struct netlink_ext_ack;
int mtun_path_add(struct mtun_device *mtun, u32 id, u32 registration, u64 generation,
		  const struct mtun_path_config *config, struct netlink_ext_ack *extack);
int mtun_path_update(struct mtun_path *path, const struct mtun_path_config *config,
		     struct netlink_ext_ack *extack);
void mtun_path_delete(struct mtun_path *path);
void mtun_path_put(struct mtun_path *path);
void mtun_path_flush(struct mtun_device *mtun);
void mtun_path_link_gone(struct mtun_device *mtun, const struct net_device *link);
struct dst_entry *mtun_path_route(struct mtun_device *mtun, struct mtun_path_entry *entry,
				  bool *noref);
struct mtun_path_entry *mtun_path_by_outer(struct mtun_net *mn, const struct in6_addr *local,
					   const struct in6_addr *remote,
					   struct mtun_path_entry *after);
struct mtun_path_entry *mtun_path_by_local(struct mtun_net *mn, const struct in6_addr *local);

/* encap.c */
netdev_tx_t mtun_encap_xmit(struct sk_buff *skb, struct net_device *dev);
/* Consumes the packet unless it answers a reason to take it up. 0 (OUT_HIT): consumed. */
enum mtun_reason mtun_encap_output(struct mtun_device *mtun, struct mtun_path *path,
				   struct sk_buff *skb, const struct mtun_inner *inner, u32 label);
enum mtun_parse mtun_encap_parse(struct sk_buff *skb, struct mtun_inner *inner);
enum mtun_reason mtun_encap_parse_reason(enum mtun_parse parse);

/* decap.c */
int mtun_decap_register(void);
void mtun_decap_unregister(void);
void mtun_decap_deliver(struct mtun_device *mtun, struct sk_buff *skb);

/* What the lookup of one received packet found. */
struct mtun_decap_answer {
	struct mtun_path *path;		/* that admits it, or by which it came */
	struct mtun_flow *flow;
	enum mtun_reason reason;	/* IN_HIT, or why it goes up */
	bool ours;			/* a path has these outer addresses */
};

void mtun_decap_ask(struct mtun_net *mn, const struct in6_addr *local,
		    const struct in6_addr *remote, u8 encapsulation, const struct mtun_key *key,
		    struct mtun_decap_answer *answer);
void mtun_decap_admitted(const struct mtun_decap_answer *answer, struct mtun_load load);
/* Strips an admitted packet, whose outer header is left of skb->data, and receives it. */
void mtun_decap_take(const struct mtun_decap_answer *answer, struct sk_buff *skb,
		     const struct mtun_inner *inner);
void mtun_decap_up(struct mtun_path *path, struct sk_buff *skb, enum mtun_reason reason);
void mtun_decap_drop(struct mtun_device *mtun, struct sk_buff *skb, enum mtun_reason reason);

/* ingress.c: changes under mtun->lock */
struct netlink_ext_ack;
int mtun_ingress_attach(struct mtun_device *mtun, u32 link, struct netlink_ext_ack *extack);
int mtun_ingress_detach(struct mtun_device *mtun, u32 link);
void mtun_ingress_flush(struct mtun_device *mtun);

/* optimized.c: per namespace of uplinks */
int mtun_optimized_register(struct net *net);
void mtun_optimized_unregister(struct net *net);

/* miss.c */
void mtun_miss_enqueue(struct mtun_device *mtun, struct sk_buff *skb, u32 direction,
		       enum mtun_reason reason, u32 path);
void mtun_miss_work(struct work_struct *work);

/* netlink.c, netlink_path.c, netlink_flow.c */
struct genl_info;
struct netlink_callback;
extern struct genl_family mtun_netlink_family;
int mtun_netlink_register(void);
void mtun_netlink_unregister(void);
struct mtun_device *mtun_netlink_device(struct genl_info *info);
struct mtun_path *mtun_netlink_path(struct mtun_device *mtun, struct genl_info *info);
int mtun_netlink_may_use_links(struct sk_buff *skb, const struct mtun_device *mtun,
			       struct genl_info *info);
int mtun_netlink_path_add(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_path_update(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_path_delete(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_path_get(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_path_dump(struct sk_buff *skb, struct netlink_callback *cb);
int mtun_netlink_generation_set(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_flow_add(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_flow_delete(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_flow_flush(struct sk_buff *skb, struct genl_info *info);
int mtun_netlink_flow_dump(struct sk_buff *skb, struct netlink_callback *cb);

#endif
