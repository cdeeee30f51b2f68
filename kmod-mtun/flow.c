// SPDX-License-Identifier: GPL-2.0-only
/*
 * Remembered decisions: (key under mask) -> path, stamped with a generation.
 *
 * The table has a fixed number of buckets and a hard cap on entries. What has not been used for
 * a while, or can never hold again, is forgotten by a worker that walks a slice at a time.
 * Readers take no lock; writers hold the device's mutex.
 */
#include <linux/hash.h>
#include <linux/random.h>
#include <linux/rculist.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "mtun.h"

/* One cache line for the lookup, one for the figures; what README.md says a flow costs. */
static_assert(sizeof(struct mtun_flow) <= 128);

/* Attackers choose keys, so the hash is keyed. */
static hsiphash_key_t mtun_flow_secret __read_mostly;

/* Kept in a free bit of a remembered key, so that the two directions never meet. */
#define MTUN_FLOW_IN 0x80

void __init mtun_flow_init(void)
{
	get_random_bytes(&mtun_flow_secret, sizeof(mtun_flow_secret));
}

u32 mtun_flow_direction(const struct mtun_flow *flow)
{
	return flow->key.present & MTUN_FLOW_IN ? MTUN_DIRECTION_IN : MTUN_DIRECTION_OUT;
}

static void mtun_flow_key(const struct mtun_flow_table *table, u32 direction,
			  const struct mtun_key *key, struct mtun_key *masked)
{
	mtun_key_mask(masked, key, &table->mask[direction]);
	masked->present &= MTUN_PRESENT_ALL;
	if (direction == MTUN_DIRECTION_IN)
		masked->present |= MTUN_FLOW_IN;
}

static u32 mtun_flow_hash(const struct mtun_flow_table *table, const struct mtun_key *masked,
			  const struct mtun_path *path)
{
	u32 hash = hsiphash(masked, sizeof(*masked), &mtun_flow_secret);

	/* An entry of direction IN belongs to the path by which its packets come. */
	if (masked->present & MTUN_FLOW_IN)
		hash ^= hash_32(path->id, 32);
	return hash_32(hash, table->bits);
}

static struct mtun_flow *mtun_flow_find(const struct mtun_flow_table *table,
					const struct mtun_key *masked,
					const struct mtun_path *path)
{
	struct mtun_flow *flow;

	hlist_for_each_entry_rcu(flow, &table->buckets[mtun_flow_hash(table, masked, path)],
				 node, true)
		if (mtun_key_equal(&flow->key, masked) &&
		    (flow->path == path || !(masked->present & MTUN_FLOW_IN)))
			return flow;
	return NULL;
}

/* `key` may hold any bits; only those of the table's mask count. */
struct mtun_flow *mtun_flow_lookup(const struct mtun_flow_table *table, u32 direction,
				   const struct mtun_key *key, const struct mtun_path *path)
{
	struct mtun_key masked __aligned(8);

	mtun_flow_key(table, direction, key, &masked);
	return mtun_flow_find(table, &masked, path);
}

static bool mtun_flow_is_leased(const struct mtun_device *mtun)
{
	switch (smp_load_acquire(&mtun->lease)) {
	case MTUN_LEASE_NONE:
		return true;
	case MTUN_LEASE_HELD:
		return !time_after32((u32)jiffies, READ_ONCE(mtun->lease_until));
	default:
		return false;
	}
}

/* Whether what is remembered still holds: a hit, or why it went up. */
enum mtun_reason mtun_flow_judge(const struct mtun_flow *flow)
{
	if (!flow)
		return MTUN_REASON_MISS;
	if (!rcu_access_pointer(flow->path->entry))
		return MTUN_REASON_PATH_GONE;
	if (flow->generation != READ_ONCE(flow->path->registration->generation))
		return MTUN_REASON_STALE;
	if (!mtun_flow_is_leased(flow->path->mtun))
		return MTUN_REASON_LEASE;
	if (flow->lasts && (u32)jiffies - READ_ONCE(flow->used) >
	    flow->lasts * (HZ * MTUN_LASTS_UNIT / MSEC_PER_SEC))
		return MTUN_REASON_SILENT;
	return MTUN_REASON_OUT_HIT;
}

struct mtun_load mtun_flow_load(const struct sk_buff *skb, const struct mtun_inner *inner)
{
	const struct skb_shared_info *shared = skb_shinfo(skb);
	struct mtun_load load = { .packets = 1, .octets = skb->len };
	u32 header = inner->upper_at + sizeof(struct udphdr);

	if (!skb_is_gso(skb))
		return load;
	if (shared->gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6)) {
		struct tcphdr copy;
		const struct tcphdr *tcp = skb_header_pointer(skb, inner->upper_at, sizeof(copy),
							      &copy);

		if (!tcp)
			return load;
		header = inner->upper_at + __tcp_hdrlen(tcp);
	}
	if (header >= skb->len)
		return load;
	load.packets = shared->gso_segs ?: DIV_ROUND_UP(skb->len - header, shared->gso_size);
	load.octets += (load.packets - 1) * header;
	return load;
}

void mtun_flow_touch(struct mtun_flow *flow, struct mtun_load load)
{
	u32 now = (u32)jiffies;

	atomic_long_add(load.packets, &flow->packets);
	atomic_long_add(load.octets, &flow->octets);
	if (READ_ONCE(flow->used) != now)
		WRITE_ONCE(flow->used, now);
}

struct mtun_flow_table *mtun_flow_table_new(u32 limit)
{
	/* Half as many buckets as flows: chains of two when full. */
	u32 bits = max_t(u32, 6, ilog2(roundup_pow_of_two(limit)) - 1);
	struct mtun_flow_table *table;

	table = kvzalloc(struct_size(table, buckets, 1u << bits), GFP_KERNEL_ACCOUNT);
	if (!table)
		return NULL;
	table->bits = bits;
	table->limit = limit;
	/* The two addresses and everything between: a mask that is never wrong, only fine. */
	memset(table->mask, 0xff, sizeof(table->mask));
	return table;
}

static void mtun_flow_forget(struct mtun_device *mtun, struct mtun_flow *flow)
{
	struct mtun_path *path = flow->path;

	hlist_del_rcu(&flow->node);
	mtun->flows--;
	mtun->changes++;
	path->flows--;
	kfree_rcu(flow, rcu);
	mtun_path_put(path);
}

static struct mtun_flow_table *mtun_flow_table(struct mtun_device *mtun)
{
	return rcu_dereference_protected(mtun->table, lockdep_is_held(&mtun->lock));
}

static bool mtun_flow_described(const struct mtun_flow *flow,
				const struct mtun_flow_filter *filter)
{
	struct mtun_key masked, wanted;

	if (filter->direction && *filter->direction != mtun_flow_direction(flow))
		return false;
	if (filter->path && filter->path != flow->path)
		return false;
	if (filter->registration && *filter->registration != flow->path->registration->id)
		return false;
	if (!filter->key)
		return true;
	mtun_key_mask(&masked, &flow->key, filter->mask);
	mtun_key_mask(&wanted, filter->key, filter->mask);
	return mtun_key_equal(&masked, &wanted);
}

u32 mtun_flow_flush(struct mtun_device *mtun, const struct mtun_flow_filter *filter)
{
	struct mtun_flow_table *table = mtun_flow_table(mtun);
	struct mtun_flow *flow;
	struct hlist_node *next;
	u32 bucket, flushed = 0;

	for (bucket = 0; bucket < 1u << table->bits; bucket++) {
		hlist_for_each_entry_safe(flow, next, &table->buckets[bucket], node) {
			if (!mtun_flow_described(flow, filter))
				continue;
			mtun_flow_forget(mtun, flow);
			flushed++;
		}
		if (!(bucket & 0xff))
			cond_resched();
	}
	return flushed;
}

void mtun_flow_table_free(struct mtun_device *mtun)
{
	struct mtun_flow_table *table = mtun_flow_table(mtun);
	const struct mtun_flow_filter everything = {};

	mtun_flow_flush(mtun, &everything);
	RCU_INIT_POINTER(mtun->table, NULL);
	kvfree_rcu(table, rcu);
}

/* New masks or a new cap: start again with nothing remembered. */
int mtun_flow_table_replace(struct mtun_device *mtun, u32 limit, const struct mtun_key *out,
			    const struct mtun_key *in)
{
	struct mtun_flow_table *old = mtun_flow_table(mtun);
	const struct mtun_flow_filter everything = {};
	struct mtun_flow_table *table;

	table = mtun_flow_table_new(limit ?: old->limit);
	if (!table)
		return -ENOMEM;
	table->mask[MTUN_DIRECTION_OUT] = out ? *out : old->mask[MTUN_DIRECTION_OUT];
	table->mask[MTUN_DIRECTION_IN] = in ? *in : old->mask[MTUN_DIRECTION_IN];
	mtun_flow_flush(mtun, &everything);
	rcu_assign_pointer(mtun->table, table);
	mtun->age_bucket = 0;
	mtun->changes++;
	kvfree_rcu(old, rcu);
	return 0;
}

int mtun_flow_add(struct mtun_device *mtun, u32 direction, const struct mtun_key *key,
		  struct mtun_path *path, u64 generation, u32 lasts, u32 label, bool exclusive)
{
	struct mtun_flow_table *table = mtun_flow_table(mtun);
	struct mtun_flow *flow, *old;
	struct mtun_key masked __aligned(8);

	if (generation != path->registration->generation)
		return -ESTALE;
	mtun_flow_key(table, direction, key, &masked);
	old = mtun_flow_find(table, &masked, path);
	if (old && exclusive)
		return -EEXIST;
	if (!old && mtun->flows >= table->limit) {
		/* Whatever no longer holds makes room soon. */
		mod_delayed_work(mtun_workqueue, &mtun->age_work, 0);
		return -ENOSPC;
	}
	flow = kzalloc(sizeof(*flow), GFP_KERNEL_ACCOUNT);
	if (!flow)
		return -ENOMEM;
	flow->key = masked;
	flow->path = path;
	flow->generation = generation;
	flow->label = label;
	/* Asked anew rather too early than too late, but not without end. */
	flow->lasts = lasts ? max_t(u32, lasts / MTUN_LASTS_UNIT, 1) : 0;
	flow->used = (u32)jiffies;
	refcount_inc(&path->refs);
	path->flows++;
	mtun->changes++;
	if (old) {
		struct mtun_path *left = old->path;

		atomic_long_set(&flow->packets, atomic_long_read(&old->packets));
		atomic_long_set(&flow->octets, atomic_long_read(&old->octets));
		hlist_replace_rcu(&old->node, &flow->node);
		left->flows--;
		kfree_rcu(old, rcu);
		mtun_path_put(left);
		return 0;
	}
	mtun->flows++;
	hlist_add_head_rcu(&flow->node, &table->buckets[mtun_flow_hash(table, &masked, path)]);
	return 0;
}

struct mtun_flow *mtun_flow_delete(struct mtun_device *mtun, u32 direction,
				   const struct mtun_key *key, const struct mtun_path *path)
{
	struct mtun_flow *flow = mtun_flow_lookup(mtun_flow_table(mtun), direction, key, path);

	if (flow)
		mtun_flow_forget(mtun, flow);
	return flow;
}

/* One slice in each run: the whole table comes round in MTUN_AGE_SLICES runs. */
#define MTUN_AGE_SLICES 8
#define MTUN_AGE_INTERVAL (HZ / 2)
/* What no longer holds is kept for a while: whoever ended it wants to know what it carried. */
#define MTUN_AGE_GRACE (4 * HZ)

static bool mtun_flow_is_over(const struct mtun_flow *flow, u32 idle, u32 grace)
{
	u32 silent = (u32)jiffies - READ_ONCE(flow->used);

	switch (mtun_flow_judge(flow)) {
	case MTUN_REASON_OUT_HIT:
	case MTUN_REASON_SILENT:
		return silent > idle;
	default:
		return silent > grace;
	}
}

void mtun_flow_age(struct work_struct *work)
{
	struct mtun_device *mtun = container_of(work, struct mtun_device, age_work.work);
	struct mtun_flow_table *table;
	struct mtun_flow *flow;
	struct hlist_node *next;
	u32 buckets, slice, idle, grace = MTUN_AGE_GRACE;

	mutex_lock(&mtun->lock);
	if (!mtun->alive)
		goto out;
	table = mtun_flow_table(mtun);
	buckets = 1u << table->bits;
	idle = mtun->flow_idle * HZ;
	/* Far from now, the clock of a lease that is over would come round again. */
	if (!mtun_flow_is_leased(mtun))
		cmpxchg(&mtun->lease, MTUN_LEASE_HELD, MTUN_LEASE_OVER);
	/* Nearly full: who has been silent for a quarter of the time makes room. */
	if (mtun->flows > table->limit - table->limit / 8) {
		idle /= 4;
		grace = 0;
	}
	for (slice = 0; slice < buckets / MTUN_AGE_SLICES && mtun->flows; slice++) {
		hlist_for_each_entry_safe(flow, next, &table->buckets[mtun->age_bucket], node)
			if (mtun_flow_is_over(flow, idle, grace))
				mtun_flow_forget(mtun, flow);
		mtun->age_bucket = (mtun->age_bucket + 1) & (buckets - 1);
		if (!(slice & 0xff))
			cond_resched();
	}
	queue_delayed_work(mtun_workqueue, &mtun->age_work, MTUN_AGE_INTERVAL);
out:
	mutex_unlock(&mtun->lock);
}
