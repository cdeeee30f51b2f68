/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The contract between kmod-mtun and user space: nothing else is shared.
 *
 * The module remembers decisions and makes none. User space writes paths (where a packet goes
 * on the outside), tells per registration which generation of decisions holds, and adds flows:
 * (key under mask) -> path, stamped with the generation under which it was decided. A packet
 * that no remembered decision covers goes up as MTUN_CMD_MISS and comes down, decided, as
 * MTUN_CMD_EXECUTE.
 *
 * Integers are in host order unless their type says otherwise; addresses are in network order.
 */
#ifndef _UAPI_LINUX_MTUN_H
#define _UAPI_LINUX_MTUN_H

#include <linux/types.h>

#define MTUN_GENL_NAME "mtun"
#define MTUN_GENL_VERSION 1

/* The fields of one inner packet that a decision may consult. As a mask: the bits that count. */
struct mtun_key {
	__u8	source[16];
	__u8	destination[16];
	__be32	flow_label;		/* 20 bits */
	__be32	spi;			/* of ESP and AH */
	__u32	uid;			/* of the local socket that sent it */
	__u32	ingress;		/* interface it was forwarded from, or the number that
					 * MTUN_A_DOORS gives it; 0: a local socket */
	__be16	source_port;		/* TCP, UDP, DCCP, SCTP, UDP-Lite */
	__be16	destination_port;
	__u8	protocol;		/* upper layer, extension headers skipped */
	__u8	dscp;			/* 0 to 63 */
	__u8	icmp_type;
	__u8	present;		/* MTUN_PRESENT_*: which fields this packet has */
};

#define MTUN_PRESENT_PORTS	0x01
#define MTUN_PRESENT_SPI	0x02
#define MTUN_PRESENT_ICMP_TYPE	0x04
#define MTUN_PRESENT_UID	0x08
#define MTUN_PRESENT_ALL	0x0f

/* An interface that packets are forwarded from, and what the key calls it. */
struct mtun_door {
	__u32	link;
	__u32	ingress;
};

/* Which way a packet goes: out into the tunnel, or in from an uplink. */
enum mtun_direction {
	MTUN_DIRECTION_OUT,
	MTUN_DIRECTION_IN,
	__MTUN_DIRECTION_COUNT,
};

/* How a path wraps: 0 is IPv6 in IPv6 (RFC 2473), else the union of these (RFC 6275). */
#define MTUN_ENCAPSULATION_TUNNEL	0x00
#define MTUN_ENCAPSULATION_HOME_ADDRESS	0x01	/* Home Address option (6.3) */
#define MTUN_ENCAPSULATION_ROUTING	0x02	/* type 2 routing header (6.4) */

/* What happened to a packet. The order is that of the counters in MTUN_A_COUNTERS. */
enum mtun_reason {
	/* A remembered decision held; what the link made of the packet is told below. */
	MTUN_REASON_OUT_HIT,
	MTUN_REASON_IN_HIT,
	/* Decided by user space and sent down by MTUN_CMD_EXECUTE. */
	MTUN_REASON_OUT_EXECUTED,
	MTUN_REASON_IN_EXECUTED,
	/* Went up. */
	MTUN_REASON_MISS,		/* nothing is remembered of this flow */
	MTUN_REASON_STALE,		/* remembered under another generation */
	MTUN_REASON_PATH_GONE,		/* remembered, but its path was deleted */
	MTUN_REASON_LEASE,		/* remembered, but nobody vouches for it any more */
	MTUN_REASON_SILENT,		/* remembered, but silent for longer than it lasts */
	MTUN_REASON_FRAGMENT,		/* the inner packet is a fragment */
	MTUN_REASON_VERSION,		/* the inner packet is not IPv6 */
	MTUN_REASON_LENGTH,		/* its length field is not its length */
	MTUN_REASON_HEADERS,		/* its header chain is not one that is followed here */
	MTUN_REASON_HOP_LIMIT,		/* its hop limit is used up */
	MTUN_REASON_ENCAPSULATION_LIMIT,/* it forbids another encapsulation (RFC 2473 4.1.1) */
	MTUN_REASON_ENCAPSULATION,	/* its path wraps in a way that does not fit it */
	MTUN_REASON_OUTER,		/* received from an outer address that is no path's */
	/* Dropped. */
	MTUN_REASON_NO_DAEMON,		/* nobody listens for misses */
	MTUN_REASON_QUEUE_FULL,		/* the miss queue, or the listener's socket, is full */
	MTUN_REASON_NO_ROUTE,		/* no route by the path's link */
	MTUN_REASON_TOO_BIG,		/* larger than the path; answered with Packet Too Big */
	MTUN_REASON_CONGESTION,		/* RFC 6040 4.2: outer CE, inner Not-ECT */
	MTUN_REASON_NO_MEMORY,
	MTUN_REASON_NOT_SENT,		/* refused further down: firewall, queue, link */
	__MTUN_REASON_COUNT,
};

enum mtun_command {
	MTUN_CMD_UNSPEC,
	/*
	 * DEVICE_SET: IFINDEX, [MASK_OUT, MASK_IN, FLOW_LIMIT, FLOW_IDLE, MISS_LIMIT, LEASE, DOORS].
	 * A new mask or flow limit forgets all flows. DEVICE_GET: IFINDEX -> those up to MISS_LIMIT,
	 * FLOWS, PATHS.
	 */
	MTUN_CMD_DEVICE_SET,
	MTUN_CMD_DEVICE_GET,
	/*
	 * PATH_ADD: IFINDEX, PATH, REGISTRATION, LOCAL, REMOTE, LINK,
	 *   [NEXT_HOP, MTU, HOP_LIMIT, MARK, ENCAPSULATION, GENERATION]; GENERATION is that of a
	 *   registration that is new by this path.
	 * PATH_UPDATE: IFINDEX, PATH, what changes: a handover is this one message.
	 * PATH_DELETE: IFINDEX, PATH. PATH_GET: IFINDEX, PATH; dump: IFINDEX.
	 */
	MTUN_CMD_PATH_ADD,
	MTUN_CMD_PATH_UPDATE,
	MTUN_CMD_PATH_DELETE,
	MTUN_CMD_PATH_GET,
	/* IFINDEX, REGISTRATION, GENERATION: decisions of other generations are stale at once. */
	MTUN_CMD_GENERATION_SET,
	/*
	 * FLOW_ADD: IFINDEX, DIRECTION, KEY, PATH, GENERATION, [LASTS, LABEL]. Refused with ESTALE
	 *   when GENERATION is not the registration's; replaces what was remembered of the key unless
	 *   NLM_F_EXCL. An entry of direction IN admits what arrives by that path.
	 * FLOW_DELETE: IFINDEX, DIRECTION, KEY, [PATH for IN]; with NLM_F_ECHO the flow as it was
	 *   comes back, as in FLOW_GET.
	 * FLOW_FLUSH: IFINDEX, [DIRECTION, PATH, REGISTRATION, KEY and MASK] -> FLOWS deleted: every
	 *   flow that all given attributes describe.
	 * FLOW_GET: dump: IFINDEX.
	 */
	MTUN_CMD_FLOW_ADD,
	MTUN_CMD_FLOW_DELETE,
	MTUN_CMD_FLOW_FLUSH,
	MTUN_CMD_FLOW_GET,
	/* IFINDEX -> COUNTERS. */
	MTUN_CMD_COUNTERS_GET,
	/* IFINDEX: this socket gets the device's misses from here on, until it is closed. */
	MTUN_CMD_LISTEN,
	/* Up: IFINDEX, DIRECTION, REASON, PACKET, [INGRESS, UID, PATH]. IN: with the outer header. */
	MTUN_CMD_MISS,
	/*
	 * OUT: IFINDEX, DIRECTION, PATH, PACKET (inner): encapsulate and send.
	 * IN: IFINDEX, DIRECTION, PACKET (inner), [VNET]: receive as if it had come out of the tunnel.
	 */
	MTUN_CMD_EXECUTE,
	/*
	 * IFINDEX, LINK: packets are taken where they enter by this link, before anybody else sees
	 * them, if a remembered decision admits them; all others go on as they came. Without it, they
	 * are taken where the stack delivers tunnel packets.
	 */
	MTUN_CMD_LINK_ATTACH,
	MTUN_CMD_LINK_DETACH,
	__MTUN_CMD_COUNT,
};

enum mtun_attribute {
	MTUN_A_UNSPEC,
	MTUN_A_PAD,
	MTUN_A_IFINDEX,		/* u32 */
	MTUN_A_DIRECTION,	/* u8, enum mtun_direction */
	MTUN_A_PATH,		/* u32, chosen by user space, never 0 */
	MTUN_A_REGISTRATION,	/* u32, chosen by user space */
	MTUN_A_GENERATION,	/* u64, never falls */
	MTUN_A_LOCAL,		/* in6_addr: outer source */
	MTUN_A_REMOTE,		/* in6_addr: outer destination */
	MTUN_A_LINK,		/* u32, ifindex of the uplink */
	MTUN_A_NEXT_HOP,	/* in6_addr; :: = as the routing table says for this link */
	MTUN_A_MTU,		/* u32, of the path outside; 0 = the link's */
	MTUN_A_HOP_LIMIT,	/* u8, of the outer header; 0 = 64 */
	MTUN_A_MARK,		/* u32, of the outer packet */
	MTUN_A_ENCAPSULATION,	/* u8, MTUN_ENCAPSULATION_* */
	MTUN_A_KEY,		/* struct mtun_key */
	MTUN_A_MASK,		/* struct mtun_key */
	MTUN_A_MASK_OUT,	/* struct mtun_key */
	MTUN_A_MASK_IN,		/* struct mtun_key */
	MTUN_A_LASTS,		/* u32, milliseconds, up to 81900; silent for longer, a flow is asked
				 * anew. 0: it never is */
	MTUN_A_PACKETS,		/* u64 */
	MTUN_A_OCTETS,		/* u64 */
	MTUN_A_IDLE,		/* u32, milliseconds since the last packet */
	MTUN_A_FLOWS,		/* u32 */
	MTUN_A_PATHS,		/* u32 */
	MTUN_A_FLOW_LIMIT,	/* u32 */
	MTUN_A_FLOW_IDLE,	/* u32, seconds after which an unused flow is forgotten */
	MTUN_A_MISS_LIMIT,	/* u32, packets */
	MTUN_A_COUNTERS,	/* u64 for each enum mtun_reason */
	MTUN_A_REASON,		/* u32, enum mtun_reason */
	MTUN_A_PACKET,		/* octets */
	MTUN_A_INGRESS,		/* u32, as in the key */
	MTUN_A_UID,		/* u32, as in the key */
	MTUN_A_IN_PACKETS,	/* u64, received by a path */
	MTUN_A_IN_OCTETS,	/* u64 */
	MTUN_A_LABEL,		/* u32, flow label of the outer header; 0: made from the packet */
	MTUN_A_LEASE,		/* u32, milliseconds for which flows hold from here on; 0: they do not.
				 * Once said it has to be said again and again, and it ends with
				 * the socket that listens; never said, they hold for ever */
	MTUN_A_DOORS,		/* struct mtun_door[]; from here on an interface that is not among
				 * them is ingress 1 */
	MTUN_A_VNET,		/* struct virtio_net_hdr in host order, 10 octets */
	__MTUN_A_COUNT,
};

#define MTUN_CMD_MAX (__MTUN_CMD_COUNT - 1)
#define MTUN_A_MAX (__MTUN_A_COUNT - 1)

/* Of the link kind "mtun" (IFLA_INFO_DATA); each as the MTUN_A_ of its name. */
enum {
	IFLA_MTUN_UNSPEC,
	IFLA_MTUN_FLOW_LIMIT,
	IFLA_MTUN_FLOW_IDLE,
	IFLA_MTUN_MISS_LIMIT,
	IFLA_MTUN_FLOWS,	/* read only */
	IFLA_MTUN_PATHS,	/* read only */
	__IFLA_MTUN_COUNT,
};

#define IFLA_MTUN_MAX (__IFLA_MTUN_COUNT - 1)

#endif /* _UAPI_LINUX_MTUN_H */
