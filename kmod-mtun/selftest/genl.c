// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "genl.h"

static void genl_begin_family(struct genl *genl, uint16_t family, uint8_t command, uint16_t flags)
{
	struct nlmsghdr *message = (struct nlmsghdr *)(genl->out + genl->used);
	struct genlmsghdr *head = NLMSG_DATA(message);

	genl->last = genl->used;
	memset(message, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	message->nlmsg_type = family;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = ++genl->sequence;
	head->cmd = command;
	head->version = MTUN_GENL_VERSION;
	message->nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
	genl->used += message->nlmsg_len;
}

void genl_begin(struct genl *genl, uint8_t command, uint16_t flags)
{
	genl_begin_family(genl, genl->family, command, flags);
}

void genl_put(struct genl *genl, uint16_t type, const void *data, size_t length)
{
	struct nlmsghdr *message = (struct nlmsghdr *)(genl->out + genl->last);
	struct nlattr *attr = (struct nlattr *)(genl->out + genl->used);
	size_t whole = NLA_ALIGN(NLA_HDRLEN + length);

	if (genl->used + whole > GENL_BUFFER) {
		fprintf(stderr, "message too long\n");
		exit(2);
	}
	memset(attr, 0, whole);
	attr->nla_type = type;
	attr->nla_len = (uint16_t)(NLA_HDRLEN + length);
	memcpy((char *)attr + NLA_HDRLEN, data, length);
	genl->used += whole;
	message->nlmsg_len += whole;
}

void genl_put_u8(struct genl *genl, uint16_t type, uint8_t value)
{
	genl_put(genl, type, &value, sizeof(value));
}

void genl_put_u32(struct genl *genl, uint16_t type, uint32_t value)
{
	genl_put(genl, type, &value, sizeof(value));
}

void genl_put_u64(struct genl *genl, uint16_t type, uint64_t value)
{
	genl_put(genl, type, &value, sizeof(value));
}

uint32_t genl_u32(const struct nlattr *attr)
{
	uint32_t value = 0;

	if (attr)
		memcpy(&value, genl_data(attr), sizeof(value));
	return value;
}

uint64_t genl_u64(const struct nlattr *attr)
{
	uint64_t value = 0;

	if (attr)
		memcpy(&value, genl_data(attr), sizeof(value));
	return value;
}

int genl_send(struct genl *genl)
{
	ssize_t sent = send(genl->fd, genl->out, genl->used, 0);

	genl->used = 0;
	return sent < 0 ? -errno : 0;
}

/* What the kernel says beside the number. */
static void genl_explain(const struct nlmsghdr *message)
{
	const struct nlmsgerr *error = NLMSG_DATA(message);
	size_t at = sizeof(*error), end = message->nlmsg_len - NLMSG_HDRLEN;

	if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(message->nlmsg_flags & NLM_F_CAPPED))
		at += error->msg.nlmsg_len - NLMSG_HDRLEN;
	while (at + NLA_HDRLEN <= end) {
		const struct nlattr *attr = (const void *)((const char *)error + at);

		if (attr->nla_len < NLA_HDRLEN)
			return;
		if ((attr->nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG)
			fprintf(stderr, "kernel: %s\n", (const char *)genl_data(attr));
		at += NLA_ALIGN(attr->nla_len);
	}
}

void genl_parse(const struct nlmsghdr *message, struct genl_attributes *found)
{
	const struct genlmsghdr *head = NLMSG_DATA(message);
	size_t at = NLMSG_HDRLEN + GENL_HDRLEN;

	memset(found, 0, sizeof(*found));
	found->command = head->cmd;
	found->interrupted = message->nlmsg_flags & NLM_F_DUMP_INTR;
	while (at + NLA_HDRLEN <= message->nlmsg_len) {
		const struct nlattr *attr = (const void *)((const char *)message + at);
		unsigned int type = attr->nla_type & NLA_TYPE_MASK;

		if (attr->nla_len < NLA_HDRLEN)
			return;
		if (type <= MTUN_A_MAX)
			found->at[type] = attr;
		at += NLA_ALIGN(attr->nla_len);
	}
}

int genl_receive(struct genl *genl, unsigned int acknowledgements, genl_each each, void *context)
{
	int first = 0;

	while (acknowledgements) {
		ssize_t length = recv(genl->fd, genl->in, GENL_BUFFER, 0);
		const struct nlmsghdr *message = (const void *)genl->in;

		if (length < 0)
			return -errno;
		for (; NLMSG_OK(message, (size_t)length); message = NLMSG_NEXT(message, length)) {
			struct genl_attributes attributes;
			int err = 0;

			if (message->nlmsg_type == NLMSG_ERROR ||
			    message->nlmsg_type == NLMSG_DONE) {
				err = *(const int *)NLMSG_DATA(message);
				if (message->nlmsg_type == NLMSG_ERROR)
					genl_explain(message);
				if (acknowledgements)
					acknowledgements--;
			} else if (each) {
				genl_parse(message, &attributes);
				err = each(&attributes, context);
			}
			if (err < 0 && !first)
				first = err;
		}
	}
	return first;
}

int genl_talk(struct genl *genl, genl_each each, void *context)
{
	int err = genl_send(genl);

	return err ? err : genl_receive(genl, 1, each, context);
}

static int genl_family(const struct genl_attributes *attributes, void *context)
{
	if (attributes->at[CTRL_ATTR_FAMILY_ID])
		memcpy(context, genl_data(attributes->at[CTRL_ATTR_FAMILY_ID]), sizeof(uint16_t));
	return 0;
}

int genl_open(struct genl *genl)
{
	struct sockaddr_nl local = { .nl_family = AF_NETLINK };
	int size = 8 << 20, on = 1, err;

	memset(genl, 0, sizeof(*genl));
	genl->out = calloc(1, GENL_BUFFER);
	genl->in = calloc(1, GENL_BUFFER);
	genl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (!genl->out || !genl->in || genl->fd < 0)
		return -errno;
	setsockopt(genl->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(genl->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	setsockopt(genl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(genl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	if (bind(genl->fd, (struct sockaddr *)&local, sizeof(local)))
		return -errno;
	genl_begin_family(genl, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
	genl_put(genl, CTRL_ATTR_FAMILY_NAME, MTUN_GENL_NAME, sizeof(MTUN_GENL_NAME));
	err = genl_talk(genl, genl_family, &genl->family);
	return err ? err : genl->family ? 0 : -ENOENT;
}
