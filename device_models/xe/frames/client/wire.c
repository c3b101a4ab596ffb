#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_OBJECTS = 1 << 16, HEADER = 8, INVALID_OBJECT = 0, INVALID_METHOD = 1 };

static struct object *entry(struct client *client, uint32_t id)
{
	struct objects *objects = id < WIRE_SERVER_IDS ? &client->own : &client->made;
	uint32_t at = id < WIRE_SERVER_IDS ? id : id - WIRE_SERVER_IDS;

	if (at >= MOST_OBJECTS)
		return NULL;
	if (at >= objects->count) {
		uint32_t count = at + 64;
		struct object *grown = realloc(objects->first, count * sizeof *grown);

		if (!grown)
			return NULL;
		memset(grown + objects->count, 0, (count - objects->count) * sizeof *grown);
		*objects = (struct objects){.first = grown, .count = count};
	}
	return &objects->first[at];
}

struct object *object_of(struct client *client, uint32_t id)
{
	struct object *found = id ? entry(client, id) : NULL;

	return found && found->kind ? found : NULL;
}

uint32_t object_made(struct client *client, enum kind kind, uint32_t version, void *data)
{
	for (uint32_t id = WIRE_SERVER_IDS;; id++) {
		struct object *found = entry(client, id);

		if (!found)
			return 0;
		if (found->kind)
			continue;
		*found = (struct object){.kind = kind, .version = version, .data = data};
		return id;
	}
}

void object_deleted(struct client *client, uint32_t id)
{
	struct object *found = object_of(client, id);

	if (!found)
		return;
	*found = (struct object){0};
	if (id < WIRE_SERVER_IDS)
		event(client, 1, 1, "u", id); /* wl_display.delete_id */
}

uint32_t take_number(struct request *request)
{
	if (request->at < request->end)
		return *request->at++;
	protocol_error(request->client, request->id, INVALID_METHOD, "request %u is too short", request->opcode);
	return 0;
}

const char *take_string(struct request *request)
{
	uint32_t length = take_number(request), words = (length + 3) / 4;
	const char *text = (const char *)request->at;

	if (!length)
		return "";
	if (words > request->end - request->at || text[length - 1]) {
		protocol_error(request->client, request->id, INVALID_METHOD, "a string of request %u ends behind it", request->opcode);
		return "";
	}
	request->at += words;
	return text;
}

int take_fd(struct request *request)
{
	struct client *client = request->client;
	int fd;

	if (!client->fd_count) {
		protocol_error(client, request->id, INVALID_METHOD, "request %u comes without its descriptor", request->opcode);
		return -1;
	}
	fd = client->fds[0];
	memmove(client->fds, client->fds + 1, --client->fd_count * sizeof(int));
	return fd;
}

uint32_t take_new(struct request *request, enum kind kind, uint32_t version, void *data)
{
	uint32_t id = take_number(request);
	struct object *found = id && id < WIRE_SERVER_IDS ? entry(request->client, id) : NULL;

	if (!found || found->kind) {
		protocol_error(request->client, 1, INVALID_OBJECT, "%u is no id for a new object", id);
		return 0;
	}
	*found = (struct object){.kind = kind, .version = version, .data = data};
	return id;
}

void *take_object(struct request *request, enum kind kind)
{
	uint32_t id = take_number(request);
	struct object *found = object_of(request->client, id);

	if (!id)
		return NULL;
	if (!found || found->kind != kind) {
		protocol_error(request->client, 1, INVALID_OBJECT, "%u is no object of the kind that request %u wants", id, request->opcode);
		return NULL;
	}
	return found->data;
}

static void broken(struct client *client)
{
	client->broken = true;
}

void event(struct client *client, uint32_t id, uint32_t opcode, const char *form, ...)
{
	uint32_t words[WIRE_MOST / 4] = {id}, count = 2, length, room;
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {.iov_base = words};
	struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
	const void *bytes;
	va_list arguments;

	if (client->broken)
		return;
	va_start(arguments, form);
	for (; *form; form++) {
		if (*form == 'u') {
			words[count++] = va_arg(arguments, uint32_t);
			continue;
		}
		if (*form == 'h') {
			struct cmsghdr *part = (struct cmsghdr *)control;
			int fd = va_arg(arguments, int);

			*part = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
			memcpy(CMSG_DATA(part), &fd, sizeof fd);
			header.msg_control = control;
			header.msg_controllen = sizeof control;
			continue;
		}
		bytes = va_arg(arguments, const void *);
		length = *form == 's' ? strlen(bytes) + 1 : va_arg(arguments, uint32_t);
		room = (WIRE_MOST / 4 - count - 1) * 4;
		if (length > room) {
			broken(client);
			va_end(arguments);
			return;
		}
		words[count++] = length;
		memcpy(&words[count], bytes, length);
		count += (length + 3) / 4;
	}
	va_end(arguments);
	words[1] = (count * 4) << 16 | opcode;
	data.iov_len = count * 4;
	/* A client that does not read is dropped; nobody waits for it. */
	if (sendmsg(client->socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)data.iov_len)
		broken(client);
}

void protocol_error(struct client *client, uint32_t id, uint32_t code, const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (!client->broken)
		fprintf(stderr, "frame-display: a client is dropped: %s\n", text);
	event(client, 1, 0, "uus", id, code, text);
	broken(client);
}

int wire_listen(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof address.sun_path) {
		fprintf(stderr, "%s: a socket's path has less than %zu characters\n", path, sizeof address.sun_path);
		exit(2);
	}
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 16)) {
		perror(path);
		exit(2);
	}
	return fd;
}

struct client *wire_accept(int listener)
{
	struct client *client = calloc(1, sizeof *client);
	struct object *display;

	if (!client)
		return NULL;
	client->socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	display = client->socket < 0 ? NULL : entry(client, 1);
	if (!display) {
		wire_close(client);
		return NULL;
	}
	*display = (struct object){.kind = KIND_DISPLAY, .version = 1};
	return client;
}

static void take_fds(struct client *client, struct msghdr *header)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		int count = part->cmsg_type == SCM_RIGHTS ? (part->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (int i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
			if (client->fd_count < WIRE_FDS)
				client->fds[client->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

void wire_read(struct client *client, void (*handle)(struct request *request, struct object object))
{
	char control[CMSG_SPACE(WIRE_FDS * sizeof(int))];
	struct iovec data = {.iov_base = client->in + client->length, .iov_len = WIRE_MOST - client->length};
	struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t length = recvmsg(client->socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	uint32_t at = 0;

	if (length < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (length <= 0)
		return broken(client);
	take_fds(client, &header);
	client->length += length;
	while (!client->broken && client->length - at >= HEADER) {
		uint32_t words[WIRE_MOST / 4], size;
		struct request request;
		struct object *object;

		memcpy(words, client->in + at, HEADER);
		size = words[1] >> 16;
		if (size < HEADER || size % 4 || size > WIRE_MOST)
			return protocol_error(client, 1, INVALID_METHOD, "a request of %u bytes", size);
		if (client->length - at < size)
			break;
		memcpy(words, client->in + at, size);
		at += size;
		request = (struct request){.client = client, .id = words[0], .opcode = words[1] & 0xffff, .at = words + 2, .end = words + size / 4};
		object = object_of(client, words[0]);
		if (!object)
			return protocol_error(client, 1, INVALID_OBJECT, "there is no object %u", words[0]);
		handle(&request, *object);
	}
	client->length -= at;
	memmove(client->in, client->in + at, client->length);
}

void wire_close(struct client *client)
{
	for (int i = 0; i < client->fd_count; i++)
		close(client->fds[i]);
	if (client->socket >= 0)
		close(client->socket);
	free(client->own.first);
	free(client->made.first);
	free(client);
}
