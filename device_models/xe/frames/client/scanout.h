/* What a display shows: buffers of Wayland clients, named to a compositor by surface messages. */
#ifndef SCANOUT_H
#define SCANOUT_H

#include "wire.h"

/* A wl_buffer. It lives until its client has destroyed it and nothing is shown of it. */
struct buffer {
	struct client *client; /* NULL: the client has gone */
	uint32_t id; /* 0: the client has destroyed it */
	int fd;
	bool memory; /* of a wl_shm_pool; else a dma-buf */
	uint64_t size, modifier;
	int32_t width, height;
	uint32_t stride, offset;
	uint64_t resource; /* 0: it has not been named */
	bool committed; /* it is shown, or about to be */
};

/* Connects, and says who this is; the program ends where it fails, and when the compositor goes. */
void scanout_open(const char *path, const char *name);
int scanout_socket(void);
/* Show a buffer when the frame before is done; a buffer that waited for that is given back. `done` is called with `data` when it is. */
void scanout_show(struct buffer *buffer, void (*done)(void *data), void *data);
/* Nobody wants to be told of a frame any more. */
void scanout_forget(void *data);
/* A client's buffers are all destroyed: nothing of it stays in the window. */
void scanout_client_gone(void);
/* The compositor has said something. */
void scanout_take(void);
/* The client has destroyed the buffer, or has gone: then `client` is NULL before. */
void buffer_destroyed(struct buffer *buffer);

#endif
