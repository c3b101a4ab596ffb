/* Draws frames with OpenGL ES into buffers of the device that GL_DEVICE names, and passes them to a compositor.
 *
 *	frame-renderer --socket PATH --name vm1 [--width 320] [--height 200] [--modifier linear|x|tile4] [--frames 1] [--buffers 3]
 *		[--hue 0] [--memory] [--save FOLDER] [--resize FRAME] [--revoke] [--hold]
 *
 * `--memory`: frames are read back and passed as memfds, for a driver without dma-bufs.  `--save` writes each frame as a PAM.
 * `--resize`: from that frame on the surface has half the width and height, in buffers of its own.  `--revoke`: in the end the
 * compositor has to let go of everything.  `--hold`: what there is stays until standard input ends. */
#define _GNU_SOURCE
#include "message.h"
#include "scene.h"
#include "surface.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BUFFERS = 4 };

static struct {
	const char *socket, *name, *modifier, *save;
	uint64_t width, height, frames, buffers, hue, resize;
	bool memory, hold, revoke;
} options = {.name = "vm1", .modifier = "linear", .width = 320, .height = 200, .frames = 1, .buffers = 3};

static struct buffer {
	uint64_t resource;
	int fd; /* a dma-buf or a memfd */
	uint64_t size;
	GLuint framebuffer, texture;
	void *image;
	void *map; /* of a memfd */
	bool flushed, shown; /* not composed yet; in the window, which may be composed again at any time */
	struct surface surface;
} buffers[MOST_BUFFERS];

static uint64_t modifier_of(const char *name)
{
	if (!strcmp(name, "linear"))
		return MODIFIER_LINEAR;
	if (!strcmp(name, "x"))
		return MODIFIER_X;
	if (!strcmp(name, "tile4"))
		return MODIFIER_TILE4;
	gl_fail("--modifier: allowed are linear, x, tile4");
}

static GLuint depth_buffer(void)
{
	GLuint made;

	glGenRenderbuffers(1, &made);
	glBindRenderbuffer(GL_RENDERBUFFER, made);
	glRenderbufferStorage(GL_RENDERBUFFER, GL_DEPTH_COMPONENT24, options.width, options.height);
	return made;
}

/* A framebuffer whose colours are in the buffer, which other processes see. */
static void shared_buffer(struct buffer *buffer, GLuint depth)
{
	buffer->fd = surface_allocate(getenv("GL_DEVICE"), &buffer->surface);
	buffer->image = surface_import(&buffer->surface, buffer->fd);
	if (!buffer->image)
		gl_fail("the driver does not import its own buffer");
	buffer->texture = surface_texture(buffer->image);
	glGenFramebuffers(1, &buffer->framebuffer);
	glBindFramebuffer(GL_FRAMEBUFFER, buffer->framebuffer);
	glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, buffer->texture, 0);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT, GL_RENDERBUFFER, depth);
	if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE)
		gl_fail("the driver does not draw to a buffer with this modifier");
	buffer->size = lseek(buffer->fd, 0, SEEK_END);
}

/* A framebuffer of the driver's own, and a memfd for what is read back: XRGB8888, blue first. */
static void memory_buffer(struct buffer *buffer)
{
	if (buffer == buffers)
		gl_framebuffer(options.width, options.height); /* one for all of them */
	buffer->surface.planes = 1;
	buffer->surface.stride[0] = 4 * options.width;
	buffer->size = 4 * options.width * options.height;
	buffer->fd = memfd_create(options.name, MFD_CLOEXEC);
	if (buffer->fd < 0 || ftruncate(buffer->fd, buffer->size))
		gl_fail("no memory for a frame");
	buffer->map = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED, buffer->fd, 0);
	if (buffer->map == MAP_FAILED)
		gl_fail("no mapping of a frame");
}

static void announce(int socket, const struct buffer *buffer)
{
	const char *kind = options.memory ? "memory" : "dma-buf";

	if (!message_send(socket, buffer->fd, "create resource=%llu size=%llu kind=%s", (unsigned long long)buffer->resource,
			  (unsigned long long)buffer->size, kind))
		gl_fail("the compositor has gone");
}

/* Buffers of the present size, each a new resource. */
static void make_buffers(int socket)
{
	static uint64_t resources;
	GLuint depth = options.memory ? 0 : depth_buffer();

	for (unsigned i = 0; i < options.buffers; i++) {
		buffers[i] = (struct buffer){.resource = ++resources};
		buffers[i].surface = (struct surface){
			.width = options.width, .height = options.height, .format = FORMAT_XR24,
			.modifier = options.memory ? MODIFIER_LINEAR : modifier_of(options.modifier),
		};
		if (options.memory)
			memory_buffer(&buffers[i]);
		else
			shared_buffer(&buffers[i], depth);
		announce(socket, &buffers[i]);
	}
}

static void show(int socket, const struct buffer *buffer)
{
	const struct surface *surface = &buffer->surface;
	char more[64] = "";

	if (surface->planes > 1)
		snprintf(more, sizeof more, " stride1=%u offset1=%u", surface->stride[1], surface->offset[1]);
	if (!message_send(socket, -1, "scanout resource=%llu width=%d height=%d format=%.4s modifier=%#llx stride=%u offset=%u%s",
			  (unsigned long long)buffer->resource, surface->width, surface->height, (const char *)&surface->format, (unsigned long long)surface->modifier,
			  surface->stride[0], surface->offset[0], more))
		gl_fail("the compositor has gone");
}

/* A frame of this resource is in the window, and what was there before may be drawn to again. */
static void composed(uint64_t resource)
{
	for (unsigned i = 0; i < options.buffers; i++) {
		buffers[i].shown = buffers[i].resource == resource;
		buffers[i].flushed &= !buffers[i].shown;
	}
}

/* A buffer in the window is drawn to where there is no other one. */
static bool is_busy(const struct buffer *buffer)
{
	return buffer->flushed || (buffer->shown && options.buffers > 1);
}

/* The next message of the compositor's, which says that a frame is composed. */
static void take_answer(int socket)
{
	static struct message message;
	uint64_t resource;

	if (!message_receive(socket, &message))
		gl_fail("the compositor has gone");
	if (strcmp(message.verb, "done")) {
		for (const char *word = message.verb; *word; word += strlen(word) + 1)
			fprintf(stderr, "%s ", word);
		gl_fail("is what the compositor says");
	}
	if (message.fd >= 0) {
		fence_wait(message.fd);
		message.fd = -1;
	}
	if (message_number(&message, "resource", &resource))
		composed(resource);
	message_done(&message);
}

static void swap_channels(uint8_t *to, const uint8_t *from, size_t pixels)
{
	for (size_t i = 0; i < 4 * pixels; i += 4) {
		to[i] = from[i + 2];
		to[i + 1] = from[i + 1];
		to[i + 2] = from[i];
		to[i + 3] = from[i + 3];
	}
}

static void revoke_all(int socket)
{
	static struct message message;

	if (!message_send(socket, -1, "revoke reason=end") || !message_receive(socket, &message) || strcmp(message.verb, "released"))
		gl_fail("the compositor does not let go");
	message_done(&message);
}

static void wait_for_all(int socket)
{
	for (unsigned i = 0; i < options.buffers; i++)
		while (buffers[i].flushed)
			take_answer(socket);
}

static void drop_buffers(int socket, struct buffer *unused)
{
	for (struct buffer *buffer = unused; buffer < unused + options.buffers; buffer++) {
		if (!message_send(socket, -1, "unref resource=%llu", (unsigned long long)buffer->resource))
			gl_fail("the compositor has gone");
		if (buffer->framebuffer)
			glDeleteFramebuffers(1, &buffer->framebuffer);
		if (buffer->texture)
			glDeleteTextures(1, &buffer->texture);
		if (buffer->image)
			surface_forget(buffer->image);
		if (buffer->map)
			munmap(buffer->map, buffer->size);
		close(buffer->fd);
	}
}

static void draw(int socket, uint64_t frame, struct buffer *buffer)
{
	int fence = -1;

	while (is_busy(buffer))
		take_answer(socket);
	if (!options.memory)
		glBindFramebuffer(GL_FRAMEBUFFER, buffer->framebuffer);
	scene_draw(frame, options.width, options.height, options.hue);
	if (options.memory) {
		uint8_t *pixels = malloc(buffer->size);
		if (!pixels)
			gl_fail("no memory for a frame");
		gl_read(pixels, options.width, options.height);
		swap_channels(buffer->map, pixels, options.width * options.height);
		free(pixels);
	} else {
		fence = fence_make();
	}
	if (options.save) {
		char path[256];
		snprintf(path, sizeof path, "%s/%s-%04llu.pam", options.save, options.name, (unsigned long long)frame);
		gl_save(path, options.width, options.height);
	}
	show(socket, buffer);
	if (!message_send(socket, fence, "flush resource=%llu frame=%llu", (unsigned long long)buffer->resource,
			  (unsigned long long)frame))
		gl_fail("the compositor has gone");
	if (fence >= 0)
		close(fence);
	buffer->flushed = true;
}

static void parse(int count, char **words)
{
	const struct { const char *name; const char **text; uint64_t *number; } known[] = {
		{"--socket", &options.socket, NULL}, {"--name", &options.name, NULL}, {"--modifier", &options.modifier, NULL},
		{"--save", &options.save, NULL}, {"--width", NULL, &options.width}, {"--height", NULL, &options.height},
		{"--frames", NULL, &options.frames}, {"--buffers", NULL, &options.buffers}, {"--hue", NULL, &options.hue},
		{"--resize", NULL, &options.resize},
	};

	for (int i = 1; i < count; i++) {
		unsigned n = 0;
		bool *flag = !strcmp(words[i], "--memory") ? &options.memory : !strcmp(words[i], "--hold") ? &options.hold :
			     !strcmp(words[i], "--revoke") ? &options.revoke : NULL;
		if (flag) {
			*flag = true;
			continue;
		}
		while (n < sizeof known / sizeof *known && strcmp(words[i], known[n].name))
			n++;
		if (n == sizeof known / sizeof *known || i + 1 == count)
			gl_fail(words[i]);
		if (known[n].text)
			*known[n].text = words[++i];
		else
			*known[n].number = strtoull(words[++i], NULL, 0);
	}
	if (!options.socket || !options.width || !options.height || !options.buffers || options.buffers > MOST_BUFFERS)
		gl_fail("--socket is needed, a width and a height, and 1 to 4 buffers");
	if (!options.memory && !getenv("GL_DEVICE"))
		gl_fail("GL_DEVICE names the render node; without one there is only --memory");
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	gl_open();
	scene_open();
	int socket = message_connect(options.socket);
	struct timespec begin, end;

	if (!message_send(socket, -1, "hello version=1 name=%s", options.name))
		gl_fail("the compositor has gone");
	make_buffers(socket);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (uint64_t frame = 1; frame <= options.frames; frame++) {
		struct buffer old[MOST_BUFFERS];
		if (frame == options.resize) {
			wait_for_all(socket);
			memcpy(old, buffers, sizeof old);
			options.width /= 2;
			options.height /= 2;
			make_buffers(socket);
		}
		draw(socket, frame, &buffers[frame % options.buffers]);
		/* Only now: the window shows the new surface, and was never dark. */
		if (frame == options.resize)
			drop_buffers(socket, old);
	}
	wait_for_all(socket);
	glFinish();
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (options.revoke)
		revoke_all(socket);
	printf("%s frames=%llu ms=%.0f\n", options.name, (unsigned long long)options.frames,
	       (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6);
	fflush(stdout);
	while (options.hold && getchar() != EOF)
		;
	return 0;
}
