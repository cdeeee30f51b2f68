/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What the fast path's programs and the daemon share: the layouts of their maps.
 *
 * The programs remember decisions and make none. The daemon writes paths (how a packet is wrapped
 * and where it leaves) and flows (which packets take which path), each flow stamped with the
 * generation its decision was made under. The programs write what flows carried.
 *
 * Integers are in host order unless their type says otherwise; addresses are in network order.
 * Every MTUN_AT line is checked by the C compiler here and by a Rust test against the mirror.
 */
#ifndef MTUN_BPF_H
#define MTUN_BPF_H

#include <linux/types.h>

#define MTUN_AT(type, field, offset)                                                               \
	_Static_assert(__builtin_offsetof(type, field) == (offset), #type "." #field)
#define MTUN_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)

/* Which way the packets of a flow go. */
enum mtun_direction {
	MTUN_OUT = 0,			/* from the tunnel interface to an uplink */
	MTUN_IN = 1,			/* from an uplink to the tunnel interface */
};

/*
 * Which packets are of a flow. The addresses and ports are those of packets that leave here; of
 * packets that come they are turned round. The last three tell packets that leave apart and are
 * zero for packets that come.
 */
struct mtun_flow_key {
	__u8	source[16];
	__u8	destination[16];
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;		/* TCP or UDP, right behind the IPv6 header */
	__u8	direction;		/* enum mtun_direction */
	__u8	dscp;			/* 0 to 63 */
	__u8	ingress;		/* 0: a local socket; else what mtun_doors says, or 1 */
};

MTUN_AT(struct mtun_flow_key, source, 0);
MTUN_AT(struct mtun_flow_key, destination, 16);
MTUN_AT(struct mtun_flow_key, source_port, 32);
MTUN_AT(struct mtun_flow_key, destination_port, 34);
MTUN_AT(struct mtun_flow_key, protocol, 36);
MTUN_AT(struct mtun_flow_key, direction, 37);
MTUN_AT(struct mtun_flow_key, dscp, 38);
MTUN_AT(struct mtun_flow_key, ingress, 39);
MTUN_SIZE(struct mtun_flow_key, 40);

/* One direction of a flow: the decision, and what it carried. */
struct mtun_flow {
	__u64	generation;		/* holds while its path has the same */
	__u64	epoch;			/* and the configuration has the same */
	__u64	lasts_ns;		/* silent for longer, it is asked anew; 0: never */
	__u32	path;			/* index into mtun_paths */
	__be32	label;			/* flow label of the outer header, its 20 low bits */
	/* Written by the programs. */
	__u64	seen_ns;		/* CLOCK_MONOTONIC */
	__u64	packets;
	__u64	octets;			/* of inner packets */
	/*
	 * Of the shortcut: the flow's last packet that went the normal way, through the kernel's
	 * routes and its firewall, and came out of them.
	 */
	__u64	passed_ns;		/* when; 0: none did */
	__u32	round;			/* under which round of the configuration */
	__u32	turn;			/* of which writing of its path; packets that leave */
	__u32	front;			/* by which interface of the network behind this machine, or by the
					 * tunnel interface: from or to another mobile */
	__u16	fits;			/* octets that fit where they went: there, or into the tunnel interface */
	__u8	link[14];		/* link header of the packets as they go on; none to another mobile */
	__u8	both;			/* packets of both directions have passed */
	__u8	reserved[3];
};

MTUN_AT(struct mtun_flow, generation, 0);
MTUN_AT(struct mtun_flow, epoch, 8);
MTUN_AT(struct mtun_flow, lasts_ns, 16);
MTUN_AT(struct mtun_flow, path, 24);
MTUN_AT(struct mtun_flow, label, 28);
MTUN_AT(struct mtun_flow, seen_ns, 32);
MTUN_AT(struct mtun_flow, packets, 40);
MTUN_AT(struct mtun_flow, octets, 48);
MTUN_AT(struct mtun_flow, passed_ns, 56);
MTUN_AT(struct mtun_flow, round, 64);
MTUN_AT(struct mtun_flow, turn, 68);
MTUN_AT(struct mtun_flow, front, 72);
MTUN_AT(struct mtun_flow, fits, 76);
MTUN_AT(struct mtun_flow, link, 78);
MTUN_AT(struct mtun_flow, both, 92);
MTUN_SIZE(struct mtun_flow, 96);

/* How long a flow's packets take the shortcut before one of them has to go the normal way again. */
#define MTUN_PASSED_NS 1000000000ULL

/* How a path wraps. A program leaves what it does not know to the daemon. */
enum mtun_form {
	MTUN_FORM_NONE = 0,		/* an unused entry */
	MTUN_FORM_TUNNEL = 1,		/* IPv6 in IPv6 (RFC 2473) */
	/*
	 * Straight between a mobile and a correspondent (RFC 6275 section 6.1). The home address is in
	 * the flow's key: its source, or its destination.
	 */
	MTUN_FORM_HOME_ADDRESS = 2,	/* out with a Home Address option, in with a routing header */
	MTUN_FORM_ROUTING_HEADER = 3,	/* out with a type 2 routing header, in with an option */
};

/* One binding of one registration: rewritten in place at a handover, and its flows follow. */
struct mtun_path {
	__u64	generation;
	__u8	source[16];		/* of packets that leave; turned round for those that come */
	__u8	destination[16];
	__u32	interface;		/* by which they leave */
	__u32	mark;			/* and which mark they carry */
	__u16	room;			/* octets of the largest inner packet that fits */
	__u8	hop_limit;
	__u8	form;			/* enum mtun_form */
	__u32	turn;			/* another one with every writing */
};

MTUN_AT(struct mtun_path, generation, 0);
MTUN_AT(struct mtun_path, source, 8);
MTUN_AT(struct mtun_path, destination, 24);
MTUN_AT(struct mtun_path, interface, 40);
MTUN_AT(struct mtun_path, mark, 44);
MTUN_AT(struct mtun_path, room, 48);
MTUN_AT(struct mtun_path, hop_limit, 50);
MTUN_AT(struct mtun_path, form, 51);
MTUN_AT(struct mtun_path, turn, 52);
MTUN_SIZE(struct mtun_path, 56);

/* The one entry of mtun_config. */
struct mtun_config {
	__u64	epoch;			/* another one ends every flow at once */
	__u64	lease_ns;		/* CLOCK_MONOTONIC until which the daemon vouches for all this */
	__u32	tunnel;			/* index of the tunnel interface */
	__u32	doors;			/* how many entries mtun_doors has */
	__u32	round;			/* another one ends every shortcut at once */
	__u32	shortcut;		/* enum mtun_shortcut */
	__u32	door;			/* index of one of them: most machines have no other */
	__u32	door_ingress;		/* and its ingress */
};

MTUN_AT(struct mtun_config, epoch, 0);
MTUN_AT(struct mtun_config, lease_ns, 8);
MTUN_AT(struct mtun_config, tunnel, 16);
MTUN_AT(struct mtun_config, doors, 20);
MTUN_AT(struct mtun_config, round, 24);
MTUN_AT(struct mtun_config, shortcut, 28);
MTUN_AT(struct mtun_config, door, 32);
MTUN_AT(struct mtun_config, door_ingress, 36);
MTUN_SIZE(struct mtun_config, 40);

/* Which flows may take the shortcut. */
enum mtun_shortcut {
	MTUN_SHORTCUT_NONE = 0,
	MTUN_SHORTCUT_UDP = 1,		/* a firewall follows TCP's sequence numbers */
	MTUN_SHORTCUT_ALL = 2,
};

/* What became of a packet: the index into mtun_outcomes. */
enum mtun_outcome {
	MTUN_SENT = 0,
	MTUN_RECEIVED = 1,
	/* Left to the daemon, because */
	MTUN_NOT_PLAIN = 2,		/* no TCP or UDP right behind the IPv6 header, or no whole packet */
	MTUN_UNKNOWN = 3,		/* nothing is remembered */
	MTUN_STALE = 4,			/* decided under another generation or epoch */
	MTUN_SILENT = 5,		/* the flow was silent for too long */
	MTUN_NO_LEASE = 6,		/* the daemon has not vouched lately */
	MTUN_TOO_BIG = 7,		/* does not fit the path: the daemon answers or fragments */
	MTUN_OTHER_ENDS = 8,		/* came by other addresses than the flow's last packet */
	MTUN_CONGESTION = 9,		/* RFC 6040 section 4.2 says to drop it */
	MTUN_NESTED = 10,		/* a superpacket of somebody else's tunnel */
	MTUN_REFUSED = 11,		/* the kernel could not make room, or knows no such operation */
	/* Dropped: half rewritten when the kernel failed. */
	MTUN_BROKEN = 12,
	/* By the shortcut. */
	MTUN_SHORTCUT_SENT = 13,
	MTUN_SHORTCUT_RECEIVED = 14,
	MTUN_SHORTCUT_RELAYED = 15,	/* out of one tunnel and into another */
	MTUN_OUTCOMES = 16,
};

#endif
