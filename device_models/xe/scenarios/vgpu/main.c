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

/* A buffer of the renderer's. It is named to the VMM when it is flushed first: only then does nobody write to it while its pages are looked for. */
struct resource {
	uint64_t id; /* 0: unused */
	int dmabuf; /* -1: it is named */
	char scanout[1024]; /* to be said when it is named */
};

static const char *address;
static int port;
static struct resource resources[RESOURCES];

static void send_line(const char *line)
{
	size_t length = strlen(line);
	char *text = malloc(length + 2);

	sprintf(text, "%s\n", line);
	if (write(port, text, length + 1) != (ssize_t)length + 1)
		fprintf(stderr, "xe-vgpu: the VMM does not take: %.80s\n", line);
	free(text);
}

/* When a frame is named to the VMM, and when its news come back: seconds of the monotonic clock (tests/bench/bench_machine_frames.py). */
static void log_frame(const char *line)
{
	uint64_t now = now_ns();

	printf("%llu.%06llu %s\n", (unsigned long long)(now / 1000000000), (unsigned long long)(now / 1000 % 1000000), line);
	fflush(stdout);
}

static struct resource *resource(uint64_t id)
{
	for (struct resource *r = resources; r < resources + RESOURCES; r++)
		if (r->id == id)
			return r;
	return NULL;
}

static void refuse(struct object *renderer, const char *verb, const char *reason)
{
	char line[256];

	snprintf(line, sizeof(line), "error verb=%s reason=%s", verb, reason);
	printf("%s\n", line);
	fflush(stdout);
	stream_send(renderer, line);
}

static void create(struct object *renderer, const char *line, int fd)
{
	uint64_t id;
	struct resource *r = resource(0);

	if (!number_of(line, "resource", &id) || !id || resource(id) || !r)
		return refuse(renderer, "create", "the resource has no number, or one that is taken, or there are too many");
	if (fd < 0 || !strstr(line, " kind=dma-buf"))
		return refuse(renderer, "create", "not a dma-buf");
	int copy = dup(fd);

	if (copy < 0)
		return refuse(renderer, "create", strerror(errno));
	*r = (struct resource){ .id = id, .dmabuf = copy };
}

/* Names the resource to the VMM; 0 or a negative errno value. */
static long name_resource(struct resource *r)
{
	static char ranges[LINE / 2], line[LINE];
	off_t size = lseek(r->dmabuf, 0, SEEK_END);
	void *map = size > 0 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->dmabuf, 0) : MAP_FAILED;

	if (map == MAP_FAILED)
		return -errno;
	long pieces = pages_find(map, size, address, ranges, sizeof(ranges));

	munmap(map, size);
	if (pieces < 0)
		return pieces;
	close(r->dmabuf);
	r->dmabuf = -1;
	snprintf(line, sizeof(line), "create resource=%llu size=%#llx ranges=%s", (unsigned long long)r->id,
		 (unsigned long long)size, ranges);
	printf("%s pieces=%ld\n", line, pieces);
	fflush(stdout);
	send_line(line);
	if (r->scanout[0])
		send_line(r->scanout);
	return 0;
}

static void flush(struct object *renderer, struct resource *r, const char *line, int fd)
{
	struct pollfd fence = { .fd = fd, .events = POLLIN };

	if (fd >= 0 && poll(&fence, 1, FENCE_MS) != 1)
		return refuse(renderer, "flush", "its fence is not signalled");
	log_frame(line);
	long result = r->dmabuf < 0 ? 0 : name_resource(r);

	if (result < 0)
		return refuse(renderer, "flush", strerror(-result));
	send_line(line);
}

static void renderer_said(struct object *renderer, const char *line, int fd)
{
	uint64_t id = 0;
	bool named = number_of(line, "resource", &id);
	struct resource *r = id ? resource(id) : NULL;

	if (!strncmp(line, "hello ", 6))
		return; /* the VMM has its own */
	if (named && !id && !strncmp(line, "scanout ", 8)) {
		send_line(line); /* the window goes dark */
		return;
	}
	if (!strncmp(line, "create ", 7))
		return create(renderer, line, fd);
	if (!r)
		return refuse(renderer, "message", "no such resource");
	if (!strncmp(line, "flush ", 6))
		return flush(renderer, r, line, fd);
	if (!strncmp(line, "unref ", 6)) {
		if (r->dmabuf >= 0)
			close(r->dmabuf); /* the VMM has not heard of it */
		else
			send_line(line);
		r->id = 0;
	} else if (!strncmp(line, "scanout ", 8) && r->dmabuf >= 0) {
		snprintf(r->scanout, sizeof(r->scanout), "%s", line);
	} else {
		send_line(line);
	}
}

static void renderer_gone(struct object *renderer)
{
	char line[64];

	close(renderer->fd);
	renderer->fd = -1;
	for (struct resource *r = resources; r < resources + RESOURCES; r++) {
		if (r->id && r->dmabuf >= 0)
			close(r->dmabuf);
		if (r->id && r->dmabuf < 0) {
			snprintf(line, sizeof(line), "unref resource=%llu", (unsigned long long)r->id);
			send_line(line);
		}
		r->id = 0;
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
		if (ready[1].revents & POLLIN && stream_line(&stream, FENCE_MS, line, sizeof(line)) == 0) {
			if (!strncmp(line, "done ", 5))
				log_frame(line);
			stream_send(&renderer, line);
		}
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
