/* Surfaces that leave a process: buffers of GBM, images of EGL made of dma-bufs, fences as sync files. */
#ifndef SURFACE_H
#define SURFACE_H

#include "gl.h"

#include <stdbool.h>
#include <stdint.h>

enum { SURFACE_PLANES = 2 };

/* DRM format modifiers (drm_fourcc.h). */
#define MODIFIER_LINEAR 0ull
#define MODIFIER_X (1ull << 56 | 1)
#define MODIFIER_TILE4 (1ull << 56 | 9)
/* DRM_FORMAT_XRGB8888. */
#define FORMAT_XR24 ('X' | 'R' << 8 | '2' << 16 | '4' << 24)

struct surface {
	int width, height;
	uint32_t format;
	uint64_t modifier;
	int planes;
	uint32_t stride[SURFACE_PLANES], offset[SURFACE_PLANES]; /* bytes */
};

/* A buffer of the device whose render node `node` is, with this modifier: a dma-buf of its driver, which the caller owns.  Fills in
 * planes, strides and offsets.  Ends the program where the driver makes no such buffer. */
int surface_allocate(const char *node, struct surface *surface);
/* An EGLImage of a dma-buf, which stays the caller's; NULL where the driver does not import it. */
void *surface_import(const struct surface *surface, int dmabuf);
void surface_forget(void *image);
/* A texture that is the image. */
GLuint surface_texture(void *image);

/* A sync file that is signalled when the commands so far are done; they are flushed.  -1: the driver has none, and they are done. */
int fence_make(void);
/* Commands from now on wait for a sync file, which is taken. */
void fence_wait(int fd);

#endif
