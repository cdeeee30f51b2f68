// SPDX-License-Identifier: GPL-2.0-only
/*
 * kmod-mtun: the home-bound interface that remembers decisions.
 *
 * A moving node or router has several uplinks and one device per home network. User space
 * decides which packet takes which of them and how it is wrapped; this module remembers its
 * answers and applies them. It judges nothing.
 */
#include <linux/module.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>

#include "mtun.h"

unsigned int mtun_net_id __read_mostly;
struct workqueue_struct *mtun_workqueue;

static int __net_init mtun_net_init(struct net *net)
{
	struct mtun_net *mn = mtun_net(net);

	INIT_LIST_HEAD(&mn->devices);
	spin_lock_init(&mn->lock);
	return 0;
}

/* The uplinks' namespace goes: so do its devices, wherever they were moved. */
static void __net_exit mtun_net_exit_batch(struct list_head *nets)
{
	struct mtun_device *mtun;
	struct net *net;
	LIST_HEAD(gone);

	rtnl_lock();
	list_for_each_entry(net, nets, exit_list)
		list_for_each_entry(mtun, &mtun_net(net)->devices, list)
			unregister_netdevice_queue(mtun->dev, &gone);
	unregister_netdevice_many(&gone);
	rtnl_unlock();
	list_for_each_entry(net, nets, exit_list) {
		struct mtun_outer_hash *hash = xchg(&mtun_net(net)->hash, NULL);

		if (!hash)
			continue;
		mtun_optimized_unregister(net);
		kvfree_rcu(hash, rcu);
	}
}

static struct pernet_operations mtun_net_ops = {
	.init = mtun_net_init,
	.exit_batch = mtun_net_exit_batch,
	.id = &mtun_net_id,
	.size = sizeof(struct mtun_net),
};

static int mtun_device_event(struct notifier_block *block, unsigned long event, void *info)
{
	struct net_device *dev = netdev_notifier_info_to_dev(info);
	struct mtun_device *mtun;

	if (event != NETDEV_UNREGISTER)
		return NOTIFY_DONE;
	/* Also when it moves to another namespace, whose sockets have other numbers. */
	if (dev->rtnl_link_ops == &mtun_link_ops)
		WRITE_ONCE(((struct mtun_device *)netdev_priv(dev))->listener, 0);
	list_for_each_entry(mtun, &mtun_net(dev_net(dev))->devices, list) {
		mtun_path_link_gone(mtun, dev);
		mutex_lock(&mtun->lock);
		mtun_ingress_detach(mtun, dev->ifindex);
		mutex_unlock(&mtun->lock);
	}
	return NOTIFY_DONE;
}

static struct notifier_block mtun_device_notifier = {
	.notifier_call = mtun_device_event,
};

static int mtun_socket_event(struct notifier_block *block, unsigned long event, void *info)
{
	const struct netlink_notify *notify = info;

	if (event == NETLINK_URELEASE && notify->protocol == NETLINK_GENERIC)
		mtun_device_listener_gone(notify->net, notify->portid);
	return NOTIFY_DONE;
}

static struct notifier_block mtun_socket_notifier = {
	.notifier_call = mtun_socket_event,
};

static int __init mtun_init(void)
{
	int err;

	mtun_flow_init();
	mtun_workqueue = alloc_workqueue("mtun", WQ_UNBOUND, 0);
	if (!mtun_workqueue)
		return -ENOMEM;
	err = register_pernet_device(&mtun_net_ops);
	if (err)
		goto destroy_workqueue;
	err = register_netdevice_notifier(&mtun_device_notifier);
	if (err)
		goto unregister_pernet;
	err = netlink_register_notifier(&mtun_socket_notifier);
	if (err)
		goto unregister_notifier;
	err = mtun_decap_register();
	if (err)
		goto unregister_socket;
	err = rtnl_link_register(&mtun_link_ops);
	if (err)
		goto unregister_decap;
	err = mtun_netlink_register();
	if (err)
		goto unregister_link;
	return 0;

unregister_link:
	rtnl_link_unregister(&mtun_link_ops);
unregister_decap:
	mtun_decap_unregister();
unregister_socket:
	netlink_unregister_notifier(&mtun_socket_notifier);
unregister_notifier:
	unregister_netdevice_notifier(&mtun_device_notifier);
unregister_pernet:
	unregister_pernet_device(&mtun_net_ops);
destroy_workqueue:
	destroy_workqueue(mtun_workqueue);
	return err;
}

static void __exit mtun_exit(void)
{
	mtun_netlink_unregister();
	rtnl_link_unregister(&mtun_link_ops);
	mtun_decap_unregister();
	netlink_unregister_notifier(&mtun_socket_notifier);
	unregister_netdevice_notifier(&mtun_device_notifier);
	unregister_pernet_device(&mtun_net_ops);
	destroy_workqueue(mtun_workqueue);
	/* Entries and paths are freed by functions of this module. */
	rcu_barrier();
}

module_init(mtun_init);
module_exit(mtun_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Mobile tunnel interface: remembers where flows of a home network go");
MODULE_VERSION("0.1.0");
MODULE_ALIAS_RTNL_LINK("mtun");
MODULE_ALIAS_GENL_FAMILY("mtun");
