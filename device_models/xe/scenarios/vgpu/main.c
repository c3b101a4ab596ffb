// SPDX-License-Identifier: MIT
/*
 * The virtual machine's end of its scan-out: what virtio-gpu's driver does of it in the kernel. A renderer connects as to a compositor
 * (docs/virtual-machine-frames.md). Its dma-bufs become ranges of the VF's BAR2, its fences are waited for, and the messages go to the VMM.
 *
 *   xe-vgpu NAME ADDRESS SOCKET
 *
 * NAME is that of the virtio serial port to the VMM, ADDRESS the VF's, SOCKET where the renderer connects.
 */
#define _GNU_SOURCE
#include "../client/client.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define LINE 65536
#define RESOURCES 64
#define FENCE_MS 60000

static const char *address;
static int port;
static unsigned resources[RESOURCES];

static void send_line(const char *line)
{
	size_t length = strlen(line);
	char *text = malloc(length + 2);

	sprintf(text, "%s\n", line);
	if (write(port, text, length + 1) != (ssize_t)length + 1)
		fprintf(stderr, "xe-vgpu: the VMM does not take: %.80s\n", line);
	free(text);
}

static unsigned number(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? strtoul(at + strlen(name), NULL, 0) : 0;
}

static void answer(struct object *renderer, const char *verb, const char *reason)
{
	char line[256];

	snprintf(line, sizeof(line), "error verb=%s reason=%s", verb, reason);
	stream_send(renderer, line);
}

static void create(struct object *renderer, const char *line, int fd)
{
	static char ranges[LINE / 2], message[LINE];
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	unsigned id = number(line, " resource=");
	void *map = size > 0 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	long pieces = map == MAP_FAILED ? -EINVAL : pages_find(map, size, address, ranges, sizeof(ranges));

	if (map != MAP_FAILED)
		munmap(map, size);
	if (pieces < 0 || !strstr(line, " kind=dma-buf"))
		return answer(renderer, "create", pieces < 0 ? strerror(-pieces) : "not a dma-buf");
	for (unsigned i = 0; i < RESOURCES; i++)
		if (!resources[i]) {
			resources[i] = id;
			break;
		}
	snprintf(message, sizeof(message), "create resource=%u size=%#llx ranges=%s", id, (unsigned long long)size, ranges);
	printf("%s pieces=%ld\n", message, pieces);
	fflush(stdout);
	send_line(message);
}

static void renderer_said(struct object *renderer, const char *line, int fd)
{
	struct pollfd fence = { .fd = fd, .events = POLLIN };

	if (!strncmp(line, "hello ", 6))
		return; /* the VMM has its own */
	if (!strncmp(line, "create ", 7))
		return create(renderer, line, fd);
	if (fd >= 0 && poll(&fence, 1, FENCE_MS) != 1)
		return answer(renderer, "flush", "its fence is not signalled");
	send_line(line);
}

static void renderer_gone(struct object *renderer)
{
	char line[64];

	close(renderer->fd);
	renderer->fd = -1;
	for (unsigned i = 0; i < RESOURCES; i++) {
		if (!resources[i])
			continue;
		snprintf(line, sizeof(line), "unref resource=%u", resources[i]);
		send_line(line);
		resources[i] = 0;
	}
}

int main(int count, char **words)
{
	struct object listener = { .fd = -1 }, renderer = { .fd = -1 }, stream = { .fd = -1 };
	char line[1024];
	int fd;

	if (count != 4) {
		fprintf(stderr, "usage: xe-vgpu NAME ADDRESS SOCKET\n");
		return 2;
	}
	address = words[2];
	stream.fd = port = port_open(words[1]);
	if (port < 0 || stream_listen(&listener, words[3])) {
		fprintf(stderr, "xe-vgpu: %s\n", port < 0 ? "no such port" : "no socket");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct pollfd ready[] = {
			{ .fd = renderer.fd < 0 ? listener.fd : renderer.fd, .events = POLLIN },
			{ .fd = port, .events = POLLIN },
		};

		poll(ready, 2, -1);
		if (ready[1].revents & POLLIN && stream_line(&stream, FENCE_MS, line, sizeof(line)) == 0)
			stream_send(&renderer, line);
		if (ready[1].revents & POLLHUP)
			usleep(100000);
		if (!ready[0].revents)
			continue;
		if (renderer.fd < 0)
			stream_accept(&listener, &renderer, 0);
		else if (stream_packet(&renderer, 0, line, sizeof(line), &fd) == 0) {
			renderer_said(&renderer, line, fd);
			if (fd >= 0)
				close(fd);
		} else {
			renderer_gone(&renderer);
		}
	}
}
