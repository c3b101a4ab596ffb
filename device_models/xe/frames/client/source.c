#include "source.h"

#include "windows.h"

#include <unistd.h>

enum { MOST_SIZE = 16384 };

static struct resource *find(struct source *source, uint64_t number)
{
	for (int i = 0; i < SOURCE_RESOURCES; i++)
		if (source->resources[i].number == number)
			return &source->resources[i];
	return NULL;
}

static struct resource *named(struct source *source, const struct message *message)
{
	uint64_t number;

	return message_number(message, "resource", &number) && number ? find(source, number) : NULL;
}

static void forget_texture(struct resource *resource)
{
	if (resource->texture)
		glDeleteTextures(1, &resource->texture);
	if (resource->image)
		surface_forget(resource->image);
	resource->texture = 0;
	resource->image = NULL;
	resource->surface = (struct surface){0};
}

static void darken(struct source *source)
{
	source->darkened |= source->shown != NULL;
	source->shown = NULL;
}

static void forget(struct source *source, struct resource *resource)
{
	if (source->shown == resource)
		darken(source);
	if (source->next == resource)
		source->next = NULL;
	forget_texture(resource);
	close(resource->fd);
	*resource = (struct resource){0};
}

static const char *create(struct source *source, struct message *message)
{
	struct resource *resource = find(source, 0);
	const char *kind = message_word(message, "kind");
	uint64_t number, size;

	if (!message_number(message, "resource", &number) || !number || find(source, number))
		return "a resource has a number of its own, not 0";
	if (!resource)
		return "there are 16 resources at most";
	if (message->fd < 0)
		return "the memory's descriptor is missing";
	if (!message_number(message, "size", &size) || !size)
		return "a size is needed, in bytes";
	if (!kind || (strcmp(kind, "memory") && strcmp(kind, "dma-buf")))
		return "kind: allowed are dma-buf, memory";
	off_t end = lseek(message->fd, 0, SEEK_END);
	if (end < 0 || (uint64_t)end < size)
		return "the memory is smaller than its size";
	*resource = (struct resource){.number = number, .fd = message->fd, .size = size, .memory = !strcmp(kind, "memory")};
	message->fd = -1;
	return NULL;
}

static const char *parse_surface(const struct message *message, struct surface *surface, uint64_t size)
{
	static const char *const strides[] = {"stride", "stride1"}, *const offsets[] = {"offset", "offset1"};
	const char *format = message_word(message, "format");
	uint64_t width, height, modifier, stride, offset;

	if (!message_number(message, "width", &width) || !message_number(message, "height", &height) || !width || !height ||
	    width > MOST_SIZE || height > MOST_SIZE)
		return "width and height are 1 to 16384";
	if (!format || strlen(format) != 4)
		return "format: a fourcc is needed";
	if (!message_number(message, "modifier", &modifier))
		return "a modifier is needed";
	surface->width = width;
	surface->height = height;
	memcpy(&surface->format, format, 4);
	surface->modifier = modifier;
	while (surface->planes < SURFACE_PLANES && message_number(message, strides[surface->planes], &stride)) {
		if (!message_number(message, offsets[surface->planes], &offset) || offset >= size || stride > size)
			return "a plane's stride or offset is outside of the resource";
		surface->stride[surface->planes] = stride;
		surface->offset[surface->planes++] = offset;
	}
	return surface->planes ? NULL : "a stride is needed";
}

static const char *check_memory(const struct resource *resource, const struct surface *surface)
{
	if (surface->format != FORMAT_XR24 || surface->modifier != MODIFIER_LINEAR || surface->planes != 1)
		return "memory that is copied has format XR24, modifier 0 and one plane";
	if (surface->stride[0] != 4u * surface->width)
		return "memory that is copied has no gaps between rows";
	if (surface->offset[0] + (uint64_t)surface->stride[0] * surface->height > resource->size)
		return "the surface ends behind its resource";
	return NULL;
}

static const char *scanout(struct source *source, const struct message *message)
{
	struct resource *resource = named(source, message);
	struct surface surface = {0};
	uint64_t number;
	const char *reason;

	if (message_number(message, "resource", &number) && !number) {
		source->next = NULL;
		darken(source);
		return NULL;
	}
	if (!resource)
		return "no such resource";
	reason = parse_surface(message, &surface, resource->size);
	if (!reason && resource->memory)
		reason = check_memory(resource, &surface);
	if (reason)
		return reason;
	if (memcmp(&surface, &resource->surface, sizeof surface)) {
		void *image = resource->memory ? NULL : surface_import(&surface, resource->fd);
		if (!resource->memory && !image)
			return "the driver does not import the surface";
		forget_texture(resource);
		resource->image = image;
		resource->texture = surface_texture(image);
		resource->surface = surface;
	}
	/* It is whole when it is flushed: another window may change before. */
	source->next = resource;
	return NULL;
}

/* What a compositor without dma-bufs does: the frame is copied by the processor. */
static const char *upload(const struct resource *resource)
{
	const struct surface *surface = &resource->surface;
	size_t bytes = 4 * (size_t)surface->width * surface->height;
	uint8_t *pixels = malloc(bytes);

	/* Read, not mapped: who shares the memory may cut it short at any time. */
	if (!pixels || pread(resource->fd, pixels, bytes, surface->offset[0]) != (ssize_t)bytes) {
		free(pixels);
		return "the frame cannot be read";
	}
	for (size_t i = 0; i < bytes; i += 4) {
		uint8_t blue = pixels[i];

		pixels[i] = pixels[i + 2];
		pixels[i + 2] = blue;
		pixels[i + 3] = 255;
	}
	glBindTexture(GL_TEXTURE_2D, resource->texture);
	glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA8, surface->width, surface->height, 0, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
	free(pixels);
	return NULL;
}

static const char *flush(struct source *source, struct message *message)
{
	struct resource *resource = named(source, message);
	uint64_t frame;

	if (!resource || resource != source->next)
		return "the window shows another resource";
	if (!message_number(message, "frame", &frame))
		return "the frame's number is needed";
	if (source->waits)
		return "the frame before is not done";
	if (message->fd >= 0) {
		fence_wait(message->fd);
		message->fd = -1;
	}
	if (resource->memory) {
		const char *reason = upload(resource);
		if (reason)
			return reason;
	}
	source->shown = resource;
	source->flushed = frame;
	source->waits = true;
	return NULL;
}

const char *source_take(struct source *source, struct message *message)
{
	if (!strcmp(message->verb, "create"))
		return create(source, message);
	if (!strcmp(message->verb, "scanout"))
		return scanout(source, message);
	if (!strcmp(message->verb, "flush"))
		return flush(source, message);
	if (!strcmp(message->verb, "revoke")) {
		source_forget(source);
		return message_send(source->socket, -1, "released") ? NULL : "the source has gone";
	}
	if (!strcmp(message->verb, "unref")) {
		struct resource *resource = named(source, message);
		if (!resource)
			return "no such resource";
		glFinish();
		forget(source, resource);
		windows_let_go();
		return NULL;
	}
	return "allowed are create, scanout, flush, unref, revoke";
}

void source_forget(struct source *source)
{
	/* The driver closes a buffer at once only where nothing uses it any more. */
	glFinish();
	for (int i = 0; i < SOURCE_RESOURCES; i++)
		if (source->resources[i].number)
			forget(source, &source->resources[i]);
	source->waits = false;
	windows_let_go();
}

bool source_answer(struct source *source, uint64_t composed, int fence)
{
	source->waits = false;
	source->composed = source->flushed;
	return message_send(source->socket, fence, "done resource=%llu frame=%llu composed=%llu",
			    (unsigned long long)(source->shown ? source->shown->number : 0), (unsigned long long)source->flushed,
			    (unsigned long long)composed);
}
