#include "surface.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

typedef int EGLint;
enum {
	EGL_NONE = 0x3038, EGL_HEIGHT = 0x3056, EGL_WIDTH = 0x3057, EGL_LINUX_DMA_BUF = 0x3270, EGL_LINUX_DRM_FOURCC = 0x3271,
	EGL_SYNC_NATIVE_FENCE = 0x3144, EGL_SYNC_NATIVE_FENCE_FD = 0x3145,
};
enum { GBM_BO_USE_RENDERING = 1 << 2, GBM_BO_USE_LINEAR = 1 << 4 };

/* Of EGL_EXT_image_dma_buf_import and its modifiers, by plane: descriptor, offset, pitch, modifier's low and high half. */
static const EGLint plane_words[SURFACE_PLANES][5] = {
	{0x3272, 0x3273, 0x3274, 0x3443, 0x3444}, {0x3275, 0x3276, 0x3277, 0x3445, 0x3446},
};

static void *symbol(void *library, const char *name)
{
	void *found = dlsym(library, name);

	if (!found)
		gl_fail(name);
	return found;
}

int surface_allocate(const char *node, struct surface *surface)
{
	void *library = dlopen("libgbm.so.1", RTLD_NOW);

	if (!library)
		gl_fail(dlerror());
	void *(*create_device)(int) = symbol(library, "gbm_create_device");
	void *(*create)(void *, uint32_t, uint32_t, uint32_t, const uint64_t *, unsigned, uint32_t) =
		symbol(library, "gbm_bo_create_with_modifiers2");
	int (*bo_fd)(void *) = symbol(library, "gbm_bo_get_fd");
	int (*plane_count)(void *) = symbol(library, "gbm_bo_get_plane_count");
	uint32_t (*stride)(void *, int) = symbol(library, "gbm_bo_get_stride_for_plane");
	uint32_t (*offset)(void *, int) = symbol(library, "gbm_bo_get_offset");
	uint64_t (*modifier)(void *) = symbol(library, "gbm_bo_get_modifier");
	void (*destroy)(void *) = symbol(library, "gbm_bo_destroy");
	static void *device; /* the library keeps the node open, and buffers need it */
	if (!device) {
		int fd = open(node, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			gl_fail(node);
		device = create_device(fd);
	}
	void *bo = device ? create(device, surface->width, surface->height, surface->format, &surface->modifier, 1,
				   GBM_BO_USE_RENDERING)
			  : NULL;
	if (!bo)
		gl_fail("GBM makes no buffer of this size, format and modifier");
	if (modifier(bo) != surface->modifier || plane_count(bo) > SURFACE_PLANES)
		gl_fail("GBM made a buffer with another modifier");
	surface->planes = plane_count(bo);
	for (int plane = 0; plane < surface->planes; plane++) {
		surface->stride[plane] = stride(bo, plane);
		surface->offset[plane] = offset(bo, plane);
	}
	int dmabuf = bo_fd(bo);
	destroy(bo); /* the dma-buf keeps the memory */
	if (dmabuf < 0)
		gl_fail("GBM exports no dma-buf");
	return dmabuf;
}

void *surface_import(const struct surface *surface, int dmabuf)
{
	void *(*create)(void *, void *, unsigned, void *, const EGLint *) = gl_proc("eglCreateImageKHR");
	EGLint words[32], count = 0;

#define WORD(name, value) (words[count++] = (name), words[count++] = (EGLint)(value))
	WORD(EGL_WIDTH, surface->width);
	WORD(EGL_HEIGHT, surface->height);
	WORD(EGL_LINUX_DRM_FOURCC, surface->format);
	for (int plane = 0; plane < surface->planes; plane++) {
		const EGLint *names = plane_words[plane];
		WORD(names[0], dmabuf);
		WORD(names[1], surface->offset[plane]);
		WORD(names[2], surface->stride[plane]);
		WORD(names[3], surface->modifier & 0xFFFFFFFF);
		WORD(names[4], surface->modifier >> 32);
	}
	words[count] = EGL_NONE;
	return create(gl_display(), NULL, EGL_LINUX_DMA_BUF, NULL, words);
}

void surface_forget(void *image)
{
	unsigned (*destroy)(void *, void *) = gl_proc("eglDestroyImageKHR");

	destroy(gl_display(), image);
}

GLuint surface_texture(void *image)
{
	GLuint texture;

	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_S, GL_CLAMP_TO_EDGE);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_T, GL_CLAMP_TO_EDGE);
	if (image)
		glEGLImageTargetTexture2DOES(GL_TEXTURE_2D, image);
	return texture;
}

static void *sync_object(int fd)
{
	void *(*create)(void *, unsigned, const EGLint *) = gl_proc("eglCreateSyncKHR");
	const EGLint words[] = {EGL_SYNC_NATIVE_FENCE_FD, fd, EGL_NONE};

	return create(gl_display(), EGL_SYNC_NATIVE_FENCE, words);
}

static void forget_sync(void *sync)
{
	unsigned (*destroy)(void *, void *) = gl_proc("eglDestroySyncKHR");

	destroy(gl_display(), sync);
}

int fence_make(void)
{
	int (*descriptor)(void *, void *) = gl_proc("eglDupNativeFenceFDANDROID");
	void *sync = sync_object(-1);

	glFlush();
	if (!sync) {
		glFinish();
		return -1;
	}
	int fd = descriptor(gl_display(), sync);
	forget_sync(sync);
	if (fd < 0)
		glFinish();
	return fd;
}

void fence_wait(int fd)
{
	EGLint (*wait)(void *, void *, EGLint) = gl_proc("eglWaitSyncKHR");
	void *sync = sync_object(fd);

	if (sync) {
		/* The driver has the descriptor now. */
		wait(gl_display(), sync, 0);
		forget_sync(sync);
		return;
	}
	struct pollfd signalled = {.fd = fd, .events = POLLIN};
	poll(&signalled, 1, -1);
	close(fd);
}
