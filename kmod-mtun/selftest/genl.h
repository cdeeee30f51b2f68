/* SPDX-License-Identifier: GPL-2.0-only */
/* Generic netlink for the tests, on plain sockets. */
#ifndef MTUN_SELFTEST_GENL_H
#define MTUN_SELFTEST_GENL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>

#include "../uapi/mtun.h"

#define GENL_BUFFER (256 * 1024)

struct genl {
	int fd;
	uint16_t family;
	uint32_t sequence;
	size_t used;			/* of the messages being written */
	size_t last;			/* where the last one begins */
	char *out;
	char *in;
};

/* Attributes of one received message. */
struct genl_attributes {
	const struct nlattr *at[MTUN_A_MAX + 1];
	uint8_t command;
	bool interrupted;		/* NLM_F_DUMP_INTR */
};

typedef int (*genl_each)(const struct genl_attributes *attributes, void *context);

int genl_open(struct genl *genl);
void genl_parse(const struct nlmsghdr *message, struct genl_attributes *found);
void genl_begin(struct genl *genl, uint8_t command, uint16_t flags);
void genl_put(struct genl *genl, uint16_t type, const void *data, size_t length);
void genl_put_u8(struct genl *genl, uint16_t type, uint8_t value);
void genl_put_u32(struct genl *genl, uint16_t type, uint32_t value);
void genl_put_u64(struct genl *genl, uint16_t type, uint64_t value);
/* Sends what was written. */
int genl_send(struct genl *genl);
/* Reads answers until `acknowledgements` of them or the end of a dump; 0 or -errno. */
int genl_receive(struct genl *genl, unsigned int acknowledgements, genl_each each, void *context);
/* Both, for one message. The kernel's words about an error go to standard error. */
int genl_talk(struct genl *genl, genl_each each, void *context);

static inline const void *genl_data(const struct nlattr *attr)
{
	return (const char *)attr + NLA_HDRLEN;
}

static inline size_t genl_length(const struct nlattr *attr)
{
	return attr->nla_len - NLA_HDRLEN;
}

uint32_t genl_u32(const struct nlattr *attr);
uint64_t genl_u64(const struct nlattr *attr);

#endif
