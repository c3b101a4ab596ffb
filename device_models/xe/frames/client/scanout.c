#include "scanout.h"
#include "message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* linux/dma-buf.h: struct dma_buf_export_sync_file, DMA_BUF_SYNC_READ. */
struct export_sync_file {
	uint32_t flags;
	int32_t fd;
};
#define DMA_BUF_IOCTL_EXPORT_SYNC_FILE _IOWR('b', 2, struct export_sync_file)
enum { SYNC_READ = 1, RELEASE = 0 };

struct frame {
	struct buffer *buffer;
	void (*done)(void *data);
	void *data;
};

static int compositor;
static uint64_t resources, frames;
static struct buffer *shown; /* in the window */
static struct frame flushed, next; /* not composed yet; to be flushed after that */

static void gone(void)
{
	fprintf(stderr, "frame-display: the compositor has gone\n");
	exit(1);
}

void scanout_open(const char *path, const char *name)
{
	compositor = message_connect(path);
	if (!message_send(compositor, -1, "hello version=1 name=%s", name))
		gone();
}

int scanout_socket(void)
{
	return compositor;
}

static void drop(struct buffer *buffer)
{
	if (buffer->resource && !message_send(compositor, -1, "unref resource=%llu", (unsigned long long)buffer->resource))
		gone();
	close(buffer->fd);
	free(buffer);
}

void buffer_destroyed(struct buffer *buffer)
{
	buffer->id = 0;
	if (!buffer->committed)
		drop(buffer);
}

/* Nothing of the buffer is shown any more: its client may draw to it. */
static void give_back(struct buffer *buffer)
{
	buffer->committed = false;
	if (buffer->id)
		event(buffer->client, buffer->id, RELEASE, "");
	else
		drop(buffer);
}

/* A sync file that is signalled when what was drawn to the buffer until now is there; -1: it is there. */
static int fence_of(const struct buffer *buffer)
{
	struct export_sync_file made = {.flags = SYNC_READ, .fd = -1};

	if (buffer->memory || ioctl(buffer->fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &made))
		return -1;
	return made.fd;
}

static void flush(struct frame frame)
{
	struct buffer *buffer = frame.buffer;
	unsigned long long number;
	int fence = fence_of(buffer);
	bool sent = true;

	if (!buffer->resource) {
		buffer->resource = ++resources;
		sent = message_send(compositor, buffer->fd, "create resource=%llu size=%llu kind=%s", (unsigned long long)buffer->resource,
				    (unsigned long long)buffer->size, buffer->memory ? "memory" : "dma-buf");
	}
	number = buffer->resource;
	/* A display has nothing behind its windows: alpha is no matter. */
	sent = sent && message_send(compositor, -1, "scanout resource=%llu width=%d height=%d format=XR24 modifier=%#llx stride=%u offset=%u", number,
				    buffer->width, buffer->height, (unsigned long long)buffer->modifier, buffer->stride, buffer->offset);
	sent = sent && message_send(compositor, fence, "flush resource=%llu frame=%llu", number, (unsigned long long)++frames);
	if (fence >= 0)
		close(fence);
	if (!sent)
		gone();
	flushed = frame;
}

void scanout_show(struct buffer *buffer, void (*done)(void *data), void *data)
{
	struct frame frame = {.buffer = buffer, .done = done, .data = data};

	buffer->committed = true;
	if (!flushed.buffer) {
		flush(frame);
		return;
	}
	if (next.buffer && next.buffer != buffer && next.buffer != shown && next.buffer != flushed.buffer)
		give_back(next.buffer);
	next = frame;
}

void scanout_forget(void *data)
{
	if (flushed.data == data)
		flushed.done = NULL;
	if (next.data == data)
		next.done = NULL;
}

static void composed(void)
{
	struct frame frame = flushed;
	struct buffer *before = shown;

	flushed = (struct frame){0};
	shown = frame.buffer;
	if (before && before != shown && before != next.buffer)
		give_back(before);
	printf("frame %llu %dx%d modifier=%#llx %s\n", (unsigned long long)frames, shown->width, shown->height,
	       (unsigned long long)shown->modifier, shown->memory ? "memory" : "dma-buf");
	fflush(stdout);
	if (frame.done)
		frame.done(frame.data);
	if (next.buffer && !flushed.buffer) {
		frame = next;
		next = (struct frame){0};
		flush(frame);
	}
	scanout_client_gone();
}

/* The window of a client that has gone is dark: the compositor forgets what it shows. */
void scanout_client_gone(void)
{
	if (!shown || shown->client || shown == flushed.buffer || shown == next.buffer)
		return;
	drop(shown);
	shown = NULL;
}

void scanout_take(void)
{
	static struct message message;

	if (!message_receive(compositor, &message))
		gone();
	if (strcmp(message.verb, "done") && strcmp(message.verb, "error")) {
		message_done(&message);
		return;
	}
	if (!strcmp(message.verb, "error")) {
		for (const char *word = message.verb; *word; word += strlen(word) + 1)
			fprintf(stderr, "%s ", word);
		fprintf(stderr, "is what the compositor says\n");
	}
	message_done(&message);
	if (flushed.buffer)
		composed();
}
