/* Buffers of Wayland clients: of shared memory (wl_shm) and dma-bufs (zwp_linux_dmabuf_v1). */
#define _GNU_SOURCE
#include "display.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct pool {
	int fd;
	uint32_t size;
};

struct params {
	int fd;
	uint32_t stride, offset;
	uint64_t modifier;
	int planes;
};

static const struct {
	const char *name;
	uint64_t modifier;
} modifiers[] = {{"linear", 0}, {"x", 1ull << 56 | 1}, {"tile4", 1ull << 56 | 9}};

#define FOURCC(a, b, c, d) ((a) | (b) << 8 | (c) << 16 | (uint32_t)(d) << 24)
static const uint32_t formats[] = {FOURCC('X', 'R', '2', '4'), FOURCC('A', 'R', '2', '4')};

bool is_modifier(const char *name)
{
	for (unsigned m = 0; m < sizeof modifiers / sizeof *modifiers; m++)
		if (!strcmp(name, modifiers[m].name))
			return true;
	return false;
}

static struct buffer *buffer_new(struct request *request, int fd)
{
	struct buffer *buffer = calloc(1, sizeof *buffer);

	if (!buffer || (fd = dup(fd)) < 0) {
		free(buffer);
		protocol_error(request->client, 1, 2, "no memory for a buffer");
		return NULL;
	}
	buffer->client = request->client;
	buffer->fd = fd;
	buffer->size = lseek(fd, 0, SEEK_END);
	return buffer;
}

static bool fits(const struct buffer *buffer)
{
	return buffer->width > 0 && buffer->height > 0 && buffer->stride / 4 >= (uint32_t)buffer->width &&
	       buffer->offset + (uint64_t)buffer->stride * buffer->height <= buffer->size;
}

void shm_request(struct request *request)
{
	struct pool *pool = calloc(1, sizeof *pool);
	uint32_t id = pool ? take_new(request, KIND_SHM_POOL, 1, pool) : 0;
	int fd = take_fd(request);

	if (!id || fd < 0) {
		if (fd >= 0)
			close(fd);
		if (!id)
			free(pool);
		else
			pool->fd = -1;
		return;
	}
	pool->fd = fd;
	pool->size = take_number(request);
}

void pool_destroyed(struct pool *pool)
{
	if (pool->fd >= 0)
		close(pool->fd);
	free(pool);
}

void pool_request(struct request *request, struct pool *pool)
{
	struct buffer *buffer;

	if (request->opcode == 1) {
		pool_destroyed(pool);
		return object_deleted(request->client, request->id);
	}
	if (request->opcode == 2) {
		pool->size = take_number(request);
		return;
	}
	buffer = buffer_new(request, pool->fd);
	if (!buffer)
		return;
	buffer->id = take_new(request, KIND_BUFFER, 1, buffer);
	buffer->memory = true;
	buffer->offset = take_number(request);
	buffer->width = take_number(request);
	buffer->height = take_number(request);
	buffer->stride = take_number(request);
	if (!buffer->id)
		return buffer_destroyed(buffer);
	if (!fits(buffer) || buffer->stride != 4u * buffer->width)
		protocol_error(request->client, request->id, 1, "a buffer of %dx%d with stride %u: rows without gaps inside of the pool are wanted",
			       buffer->width, buffer->height, buffer->stride);
}

static void params_add(struct request *request, struct params *params)
{
	int fd = take_fd(request);
	uint32_t plane = take_number(request), offset = take_number(request), stride = take_number(request);
	uint64_t modifier = (uint64_t)take_number(request) << 32;

	modifier |= take_number(request);
	if (fd < 0)
		return;
	if (plane || params->planes) {
		close(fd);
		return protocol_error(request->client, request->id, 1, "buffers have one plane");
	}
	*params = (struct params){.fd = fd, .stride = stride, .offset = offset, .modifier = modifier, .planes = 1};
}

static void params_create(struct request *request, struct params *params)
{
	bool now = request->opcode == 3; /* create_immed */
	struct buffer *buffer = params->planes ? buffer_new(request, params->fd) : NULL;
	struct client *client = request->client;

	if (!buffer)
		return protocol_error(client, request->id, 2, "a buffer without a plane");
	buffer->id = now ? take_new(request, KIND_BUFFER, 1, buffer) : object_made(client, KIND_BUFFER, 1, buffer);
	buffer->width = take_number(request);
	buffer->height = take_number(request);
	buffer->stride = params->stride;
	buffer->offset = params->offset;
	buffer->modifier = params->modifier;
	if (!buffer->id)
		return buffer_destroyed(buffer);
	if (!fits(buffer))
		return protocol_error(client, request->id, 6, "a buffer of %dx%d with stride %u and offset %u is larger than its dma-buf",
				      buffer->width, buffer->height, buffer->stride, buffer->offset);
	if (!now)
		event(client, request->id, 0, "u", buffer->id);
}

void params_destroyed(struct params *params)
{
	if (params->planes)
		close(params->fd);
	free(params);
}

void params_request(struct request *request, struct params *params)
{
	if (request->opcode == 1)
		return params_add(request, params);
	if (request->opcode)
		return params_create(request, params);
	params_destroyed(params);
	object_deleted(request->client, request->id);
}

/* Formats, modifiers and the device that clients should draw with: a table in memory, and indices into it. */
static void send_feedback(struct client *client, uint32_t id)
{
	struct {
		uint32_t format, unused;
		uint64_t modifier;
	} table[16];
	uint16_t indices[16], count = 0;
	struct stat node;
	int fd = memfd_create("formats", MFD_CLOEXEC);

	for (unsigned m = 0; m < sizeof modifiers / sizeof *modifiers; m++)
		for (unsigned f = 0; f < sizeof formats / sizeof *formats; f++) {
			if (options.modifier && strcmp(options.modifier, modifiers[m].name))
				continue;
			indices[count] = count;
			table[count].format = formats[f];
			table[count].unused = 0;
			table[count++].modifier = modifiers[m].modifier;
		}
	if (fd < 0 || write(fd, table, count * sizeof *table) < 0 || stat(options.node, &node)) {
		if (fd >= 0)
			close(fd);
		return protocol_error(client, id, 2, "%s: no such device, or no memory", options.node);
	}
	event(client, id, 1, "hu", fd, (uint32_t)(count * sizeof *table));
	event(client, id, 2, "a", &node.st_rdev, (uint32_t)sizeof(dev_t));
	event(client, id, 4, "a", &node.st_rdev, (uint32_t)sizeof(dev_t));
	event(client, id, 5, "a", indices, (uint32_t)(count * sizeof *indices));
	event(client, id, 6, "u", 0);
	event(client, id, 3, "");
	event(client, id, 0, "");
	close(fd);
}

void dmabuf_request(struct request *request)
{
	struct params *params;
	uint32_t id;

	if (!request->opcode)
		return object_deleted(request->client, request->id);
	if (request->opcode > 1) {
		id = take_new(request, KIND_FEEDBACK, 4, NULL);
		if (id)
			send_feedback(request->client, id);
		return;
	}
	params = calloc(1, sizeof *params);
	if (!params || !take_new(request, KIND_PARAMS, 4, params))
		free(params);
}
