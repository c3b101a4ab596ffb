/* What the parts of the display share. */
#ifndef DISPLAY_H
#define DISPLAY_H

#include "scanout.h"

extern struct options {
	const char *display, *socket, *name, *modifier, *node;
	uint64_t width, height;
} options;

/* buffers.c: requests of wl_shm and zwp_linux_dmabuf_v1, and of what they make. */
struct pool;
struct params;
void shm_request(struct request *request);
void pool_request(struct request *request, struct pool *pool);
void pool_destroyed(struct pool *pool);
void dmabuf_request(struct request *request);
void params_request(struct request *request, struct params *params);
void params_destroyed(struct params *params);
/* Whether buffers may have the modifier of this name. */
bool is_modifier(const char *name);

#endif
