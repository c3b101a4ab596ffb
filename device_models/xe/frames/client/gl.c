#include "gl.h"

#include <dlfcn.h>

#define GL_DEFINE(result, name, arguments) result (*gl##name) arguments;
GL_FUNCTIONS(GL_DEFINE)

typedef int EGLint;
enum {
	EGL_PLATFORM_SURFACELESS_MESA = 0x31DD, EGL_PLATFORM_DEVICE_EXT = 0x313F, EGL_DRM_RENDER_NODE_FILE_EXT = 0x3377, EGL_OPENGL_ES_API = 0x30A0, EGL_NONE = 0x3038,
	EGL_CONTEXT_MAJOR_VERSION = 0x3098, EGL_RENDERABLE_TYPE = 0x3040, EGL_OPENGL_ES3_BIT = 0x40, EGL_SURFACE_TYPE = 0x3033,
};

static void *display;
static void *(*get_proc)(const char *);

void gl_fail(const char *what)
{
	fprintf(stderr, "gl: %s\n", what);
	exit(2);
}

/* The device with the render node that GL_DEVICE names. */
static void *device(const char *node)
{
	unsigned (*query)(EGLint, void **, EGLint *) = get_proc("eglQueryDevicesEXT");
	const char *(*string)(void *, EGLint) = get_proc("eglQueryDeviceStringEXT");
	void *devices[16];
	EGLint count = 0;
	query(16, devices, &count);
	for (int i = 0; i < count; i++) {
		const char *found = string(devices[i], EGL_DRM_RENDER_NODE_FILE_EXT);
		if (found && !strcmp(found, node))
			return devices[i];
	}
	gl_fail("GL_DEVICE names no device");
	return NULL;
}

void gl_open(void)
{
	void *library = dlopen("libEGL.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (!library)
		gl_fail(dlerror());
	get_proc = dlsym(library, "eglGetProcAddress");
	void *(*get_display)(unsigned, void *, const intptr_t *) = get_proc("eglGetPlatformDisplay");
	unsigned (*initialize)(void *, EGLint *, EGLint *) = get_proc("eglInitialize");
	unsigned (*bind_api)(unsigned) = get_proc("eglBindAPI");
	unsigned (*choose)(void *, const EGLint *, void **, EGLint, EGLint *) = get_proc("eglChooseConfig");
	void *(*create)(void *, void *, void *, const EGLint *) = get_proc("eglCreateContext");
	unsigned (*make_current)(void *, void *, void *, void *) = get_proc("eglMakeCurrent");
	const char *node = getenv("GL_DEVICE");
	display = node ? get_display(EGL_PLATFORM_DEVICE_EXT, device(node), NULL)
		       : get_display(EGL_PLATFORM_SURFACELESS_MESA, NULL, NULL);
	EGLint major, minor, count = 0;
	if (!display || !initialize(display, &major, &minor))
		gl_fail("no display");
	bind_api(EGL_OPENGL_ES_API);
	const EGLint wanted[] = {EGL_RENDERABLE_TYPE, EGL_OPENGL_ES3_BIT, EGL_SURFACE_TYPE, 0, EGL_NONE};
	const EGLint version[] = {EGL_CONTEXT_MAJOR_VERSION, 3, EGL_NONE};
	void *config = NULL;
	if (!choose(display, wanted, &config, 1, &count) || !count)
		gl_fail("no configuration");
	void *context = create(display, config, NULL, version);
	if (!context || !make_current(display, NULL, NULL, context))
		gl_fail("no context");
#define GL_LOAD(result, name, arguments) \
	gl##name = get_proc("gl" #name); \
	if (!gl##name) \
		gl_fail("no gl" #name);
	GL_FUNCTIONS(GL_LOAD)
	fprintf(stderr, "gl: %s, %s\n", glGetString(GL_RENDERER), glGetString(GL_VERSION));
}

void *gl_proc(const char *name)
{
	return get_proc(name);
}

void *gl_display(void)
{
	return display;
}

void gl_framebuffer(int width, int height)
{
	GLuint framebuffer, buffers[2];
	glGenFramebuffers(1, &framebuffer);
	glGenRenderbuffers(2, buffers);
	glBindRenderbuffer(GL_RENDERBUFFER, buffers[0]);
	glRenderbufferStorage(GL_RENDERBUFFER, GL_RGBA8, width, height);
	glBindRenderbuffer(GL_RENDERBUFFER, buffers[1]);
	glRenderbufferStorage(GL_RENDERBUFFER, GL_DEPTH24_STENCIL8, width, height);
	glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, buffers[0]);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_STENCIL_ATTACHMENT, GL_RENDERBUFFER, buffers[1]);
	if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE)
		gl_fail("the framebuffer is not complete");
	glViewport(0, 0, width, height);
}

static GLuint shader(GLenum kind, const char *text)
{
	GLuint made = glCreateShader(kind);
	GLint done;
	char log[4096] = "";
	glShaderSource(made, 1, &text, NULL);
	glCompileShader(made);
	glGetShaderiv(made, GL_COMPILE_STATUS, &done);
	if (!done) {
		glGetShaderInfoLog(made, sizeof log, NULL, log);
		gl_fail(log);
	}
	return made;
}

GLuint gl_program_of(const struct gl_stage *stages, int count, const char *feedback)
{
	GLuint program = glCreateProgram();
	GLint done;
	char log[4096] = "";
	for (int i = 0; i < count; i++)
		glAttachShader(program, shader(stages[i].kind, stages[i].text));
	if (feedback)
		glTransformFeedbackVaryings(program, 1, &feedback, GL_INTERLEAVED_ATTRIBS);
	glLinkProgram(program);
	glGetProgramiv(program, GL_LINK_STATUS, &done);
	if (!done) {
		glGetProgramInfoLog(program, sizeof log, NULL, log);
		gl_fail(log);
	}
	glUseProgram(program);
	return program;
}

GLuint gl_program(const char *vertex, const char *fragment)
{
	const struct gl_stage stages[] = {{GL_VERTEX_SHADER, vertex}, {GL_FRAGMENT_SHADER, fragment}};
	return gl_program_of(stages, 2, NULL);
}

GLuint gl_texture(int size, int min_filter, int mag_filter)
{
	GLuint texture;
	uint8_t *texels = malloc(4 * size * size);
	for (int y = 0; y < size; y++)
		for (int x = 0; x < size; x++) {
			uint8_t *texel = texels + 4 * (y * size + x);
			texel[0] = x * 255 / (size - 1);
			texel[1] = y * 255 / (size - 1);
			texel[2] = (x / 4 + y / 4) % 2 ? 230 : 40;
			texel[3] = 255 - (x + y) * 127 / size;
		}
	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA8, size, size, 0, GL_RGBA, GL_UNSIGNED_BYTE, texels);
	glGenerateMipmap(GL_TEXTURE_2D);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, min_filter);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, mag_filter);
	free(texels);
	return texture;
}

void gl_read(uint8_t *pixels, int width, int height)
{
	glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
	GLenum error = glGetError();
	if (error)
		fprintf(stderr, "gl: error %#x\n", error);
}

void gl_save(const char *path, int width, int height)
{
	uint8_t *pixels = malloc(4 * width * height);
	FILE *file = fopen(path, "wb");
	if (!pixels || !file)
		gl_fail(path);
	gl_read(pixels, width, height);
	/* RGBA as it is, behind a header that says so (PAM). */
	fprintf(file, "P7\nWIDTH %d\nHEIGHT %d\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n", width, height);
	fwrite(pixels, 4, width * height, file);
	fclose(file);
	free(pixels);
}
