// SPDX-License-Identifier: GPL-2.0-only
/*
 * Paths: what flows point to, and where it leads at present.
 *
 * A path is a stable thing with a number; its entry holds addresses, link and next hop and is
 * replaced whole. So a handover is one store however many flows follow it, and a packet never
 * sees half of one.
 */
#include <linux/rtnetlink.h>
#include <net/addrconf.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>

#include "mtun.h"

static u32 mtun_path_hash(const struct in6_addr *local, const struct in6_addr *remote)
{
	return ipv6_addr_hash(local) ^ hash_32(remote ? ipv6_addr_hash(remote) : 0, 32);
}

/* The entries of one pair of outer addresses, one after the other: several may share it. */
struct mtun_path_entry *mtun_path_by_outer(struct mtun_net *mn, const struct in6_addr *local,
					   const struct in6_addr *remote,
					   struct mtun_path_entry *after)
{
	struct mtun_outer_hash *hash = smp_load_acquire(&mn->hash);
	struct mtun_path_entry *entry;
	struct hlist_head *head;
	struct hlist_node *node;

	if (!hash)
		return NULL;
	head = &hash->by_outer[hash_min(mtun_path_hash(local, remote), MTUN_OUTER_BITS)];
	node = after ? rcu_dereference(hlist_next_rcu(&after->by_outer)) :
		       rcu_dereference(hlist_first_rcu(head));
	entry = hlist_entry_safe(node, struct mtun_path_entry, by_outer);
	hlist_for_each_entry_from_rcu(entry, by_outer)
		if (ipv6_addr_equal(&entry->local, local) &&
		    ipv6_addr_equal(&entry->remote, remote))
			return entry;
	return NULL;
}

/* Any entry whose packets leave from this address. */
struct mtun_path_entry *mtun_path_by_local(struct mtun_net *mn, const struct in6_addr *local)
{
	struct mtun_outer_hash *hash = smp_load_acquire(&mn->hash);
	struct mtun_path_entry *entry;

	if (!hash)
		return NULL;
	hash_for_each_possible_rcu(hash->by_local, entry, by_local, mtun_path_hash(local, NULL))
		if (ipv6_addr_equal(&entry->local, local))
			return entry;
	return NULL;
}

/* A route that leads to one neighbour on one link, as long as the entry lives. */
static struct dst_entry *mtun_path_next_hop(struct net *net, struct net_device *link,
					    const struct in6_addr *next_hop)
{
	struct inet6_dev *idev = in6_dev_get(link);
	struct rt6_info *rt;

	if (!idev)
		return ERR_PTR(-ENODEV);
	rt = ip6_dst_alloc(net, link, DST_NOCOUNT);
	if (!rt) {
		in6_dev_put(idev);
		return ERR_PTR(-ENOMEM);
	}
	rt->rt6i_idev = idev;
	rt->rt6i_flags = RTF_UP | RTF_GATEWAY;
	rt->rt6i_gateway = *next_hop;
	rt->dst.output = ip6_output;
	/* Not of the routing table, so no change of it makes this one invalid. */
	rt->dst.obsolete = DST_OBSOLETE_NONE;
	return &rt->dst;
}

static void mtun_path_entry_free(struct rcu_head *rcu)
{
	struct mtun_path_entry *entry = container_of(rcu, struct mtun_path_entry, rcu);

	dst_cache_destroy(&entry->cache);
	kfree(entry);
}

static struct mtun_path_entry *mtun_path_entry_new(struct mtun_path *path,
						   const struct mtun_path_config *config,
						   struct netlink_ext_ack *extack)
{
	struct mtun_device *mtun = path->mtun;
	struct mtun_path_entry *entry;
	struct net_device *link;
	int err;

	entry = kzalloc(sizeof(*entry), GFP_KERNEL_ACCOUNT);
	if (!entry)
		return ERR_PTR(-ENOMEM);
	err = dst_cache_init(&entry->cache, GFP_KERNEL_ACCOUNT);
	if (err)
		goto free_entry;
	entry->path = path;
	entry->local = config->local;
	entry->remote = config->remote;
	entry->next_hop = config->next_hop;
	entry->link = config->link;
	entry->mtu = config->mtu;
	entry->mark = config->mark;
	entry->hop_limit = config->hop_limit ?: MTUN_HOP_LIMIT;
	entry->encapsulation = config->encapsulation;

	link = dev_get_by_index(mtun->net, config->link);
	if (!link) {
		NL_SET_ERR_MSG(extack, "link: no such device in the namespace of the uplinks");
		err = -ENODEV;
		goto destroy_cache;
	}
	if (link == mtun->dev) {
		NL_SET_ERR_MSG(extack, "link: the device itself");
		err = -ELOOP;
		goto put_link;
	}
	if (!ipv6_addr_any(&config->next_hop)) {
		struct dst_entry *dst = mtun_path_next_hop(mtun->net, link, &config->next_hop);

		if (IS_ERR(dst)) {
			NL_SET_ERR_MSG(extack, "next hop: no IPv6 on the link");
			err = PTR_ERR(dst);
			goto put_link;
		}
		entry->next_hop_dst = dst;
	}
	dev_put(link);
	return entry;

put_link:
	dev_put(link);
destroy_cache:
	dst_cache_destroy(&entry->cache);
free_entry:
	kfree(entry);
	return ERR_PTR(err);
}

static struct mtun_path_entry *mtun_path_entry(struct mtun_path *path)
{
	return rcu_dereference_protected(path->entry, lockdep_is_held(&path->mtun->lock));
}

/* The new entry first, so that no packet in between finds none. */
static void mtun_path_entry_swap(struct mtun_path *path, struct mtun_path_entry *entry)
{
	struct mtun_path_entry *old = mtun_path_entry(path);
	struct mtun_net *mn = mtun_net(path->mtun->net);

	spin_lock_bh(&mn->lock);
	if (entry) {
		hash_add_rcu(mn->hash->by_outer, &entry->by_outer,
			     mtun_path_hash(&entry->local, &entry->remote));
		hash_add_rcu(mn->hash->by_local, &entry->by_local,
			     mtun_path_hash(&entry->local, NULL));
	}
	rcu_assign_pointer(path->entry, entry);
	if (old) {
		hash_del_rcu(&old->by_outer);
		hash_del_rcu(&old->by_local);
	}
	spin_unlock_bh(&mn->lock);
	path->mtun->changes++;
	if (!old)
		return;
	/* Packets under way hold their own reference or are within this RCU period. */
	if (old->next_hop_dst)
		dst_release(old->next_hop_dst);
	call_rcu(&old->rcu, mtun_path_entry_free);
}

static void mtun_path_free(struct rcu_head *rcu)
{
	struct mtun_path *path = container_of(rcu, struct mtun_path, rcu);

	free_percpu(path->stats);
	kfree(path);
}

void mtun_path_put(struct mtun_path *path)
{
	struct mtun_registration *registration = path->registration;

	if (!refcount_dec_and_test(&path->refs))
		return;
	if (!--registration->paths)
		kfree_rcu(registration, rcu);
	call_rcu(&path->rcu, mtun_path_free);
}

static struct mtun_registration *mtun_path_registration(struct mtun_device *mtun, u32 id,
							u64 generation)
{
	struct mtun_registration *registration = xa_load(&mtun->registrations, id);
	int err;

	if (registration)
		return registration;
	registration = kzalloc(sizeof(*registration), GFP_KERNEL_ACCOUNT);
	if (!registration)
		return ERR_PTR(-ENOMEM);
	registration->id = id;
	registration->generation = generation;
	err = xa_err(xa_store(&mtun->registrations, id, registration, GFP_KERNEL_ACCOUNT));
	if (err) {
		kfree(registration);
		return ERR_PTR(err);
	}
	return registration;
}

/* No path left that is not deleted: its number is free, its generation forgotten. */
static void mtun_path_registration_left(struct mtun_device *mtun,
					struct mtun_registration *registration)
{
	if (!--registration->live)
		xa_erase(&mtun->registrations, registration->id);
}

int mtun_path_add(struct mtun_device *mtun, u32 id, u32 registration_id, u64 generation,
		  const struct mtun_path_config *config, struct netlink_ext_ack *extack)
{
	struct mtun_registration *registration;
	struct mtun_path_entry *entry;
	struct mtun_path *path;
	int err;

	if (mtun->path_count >= MTUN_PATH_LIMIT)
		return -ENOSPC;
	path = kzalloc(sizeof(*path), GFP_KERNEL_ACCOUNT);
	if (!path)
		return -ENOMEM;
	path->id = id;
	path->mtun = mtun;
	refcount_set(&path->refs, 1);
	path->stats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	if (!path->stats) {
		err = -ENOMEM;
		goto free_path;
	}
	entry = mtun_path_entry_new(path, config, extack);
	if (IS_ERR(entry)) {
		err = PTR_ERR(entry);
		goto free_stats;
	}
	registration = mtun_path_registration(mtun, registration_id, generation);
	if (IS_ERR(registration)) {
		err = PTR_ERR(registration);
		goto free_entry;
	}
	path->registration = registration;
	registration->paths++;
	registration->live++;
	err = xa_err(xa_store(&mtun->paths, id, path, GFP_KERNEL_ACCOUNT));
	if (err)
		goto leave_registration;
	mtun->path_count++;
	mtun_path_entry_swap(path, entry);
	return 0;

leave_registration:
	mtun_path_registration_left(mtun, registration);
	if (!--registration->paths)
		kfree_rcu(registration, rcu);
free_entry:
	dst_release(entry->next_hop_dst);
	mtun_path_entry_free(&entry->rcu);
free_stats:
	free_percpu(path->stats);
free_path:
	kfree(path);
	return err;
}

int mtun_path_update(struct mtun_path *path, const struct mtun_path_config *config,
		     struct netlink_ext_ack *extack)
{
	struct mtun_path_entry *entry = mtun_path_entry_new(path, config, extack);

	if (IS_ERR(entry))
		return PTR_ERR(entry);
	mtun_path_entry_swap(path, entry);
	return 0;
}

/* Its flows go up from here on, and the ageing forgets them. */
void mtun_path_delete(struct mtun_path *path)
{
	struct mtun_device *mtun = path->mtun;

	xa_erase(&mtun->paths, path->id);
	mtun->path_count--;
	mtun_path_entry_swap(path, NULL);
	mtun_path_registration_left(mtun, path->registration);
	mtun_path_put(path);
}

void mtun_path_flush(struct mtun_device *mtun)
{
	struct mtun_path *path;
	unsigned long id;

	xa_for_each(&mtun->paths, id, path)
		mtun_path_delete(path);
}

/* The link is being removed: let go of it, so that it can. */
void mtun_path_link_gone(struct mtun_device *mtun, const struct net_device *link)
{
	struct mtun_path *path;
	unsigned long id;

	mutex_lock(&mtun->lock);
	xa_for_each(&mtun->paths, id, path) {
		struct mtun_path_entry *entry = mtun_path_entry(path);

		if (entry->link != link->ifindex)
			continue;
		WRITE_ONCE(entry->link_gone, true);
		dst_cache_reset(&entry->cache);
		if (entry->next_hop_dst)
			dst_release(xchg(&entry->next_hop_dst, NULL));
	}
	mutex_unlock(&mtun->lock);
}

/*
 * The way out of a path; NULL if there is none. With `*noref` the packet must not release it.
 * Called with bottom halves off.
 */
struct dst_entry *mtun_path_route(struct mtun_device *mtun, struct mtun_path_entry *entry,
				  bool *noref)
{
	struct dst_entry *dst = READ_ONCE(entry->next_hop_dst);
	struct flowi6 fl6;

	*noref = dst;
	if (dst)
		return dst;
	if (READ_ONCE(entry->link_gone))
		return NULL;
	dst = dst_cache_get(&entry->cache);
	if (dst)
		return dst;
	memset(&fl6, 0, sizeof(fl6));
	fl6.flowi6_proto = IPPROTO_IPV6;
	fl6.flowi6_oif = entry->link;
	fl6.flowi6_mark = entry->mark;
	fl6.saddr = entry->local;
	fl6.daddr = entry->remote;
	/* By this link or not at all: the default route may lead back into the tunnel. */
	dst = ip6_route_output_flags(mtun->net, NULL, &fl6, RT6_LOOKUP_F_IFACE);
	if (dst->error || dst->dev->ifindex != entry->link || dst->dev == mtun->dev) {
		dst_release(dst);
		return NULL;
	}
	dst_cache_set_ip6(&entry->cache, dst, &entry->local);
	return dst;
}
