/* OpenGL ES 3 without a window, by symbols that are looked up when the program runs: no headers or libraries of Mesa's are
 * needed to compile it.  Names and values are those of the Khronos registry. */
#ifndef GL_H
#define GL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int GLenum, GLuint, GLbitfield;
typedef int GLint, GLsizei;
typedef float GLfloat;
typedef unsigned char GLubyte, GLboolean;
typedef intptr_t GLintptr, GLsizeiptr;

enum {
	GL_TRIANGLES = 0x4, GL_TRIANGLE_STRIP = 0x5, GL_TRIANGLE_FAN = 0x6, GL_POINTS = 0, GL_LINES = 1,
	GL_COLOR_BUFFER_BIT = 0x4000, GL_DEPTH_BUFFER_BIT = 0x100, GL_STENCIL_BUFFER_BIT = 0x400,
	GL_SRC_ALPHA = 0x302, GL_ONE_MINUS_SRC_ALPHA = 0x303, GL_ONE = 1, GL_ZERO = 0,
	GL_CULL_FACE = 0xB44, GL_DEPTH_TEST = 0xB71, GL_STENCIL_TEST = 0xB90, GL_BLEND = 0xBE2, GL_SCISSOR_TEST = 0xC11,
	GL_LESS = 0x201, GL_EQUAL = 0x202, GL_LEQUAL = 0x203, GL_ALWAYS = 0x207, GL_KEEP = 0x1E00, GL_REPLACE = 0x1E01,
	GL_BACK = 0x405, GL_FRONT = 0x404,
	GL_UNSIGNED_BYTE = 0x1401, GL_UNSIGNED_SHORT = 0x1403, GL_UNSIGNED_INT = 0x1405, GL_FLOAT = 0x1406,
	GL_RGBA = 0x1908, GL_RGBA8 = 0x8058, GL_DEPTH24_STENCIL8 = 0x88F0, GL_DEPTH_COMPONENT24 = 0x81A6,
	GL_DEPTH_COMPONENT32F = 0x8CAC,
	GL_VENDOR = 0x1F00, GL_RENDERER = 0x1F01, GL_VERSION = 0x1F02,
	GL_NEAREST = 0x2600, GL_LINEAR = 0x2601, GL_NEAREST_MIPMAP_NEAREST = 0x2700, GL_LINEAR_MIPMAP_LINEAR = 0x2703,
	GL_TEXTURE_2D = 0xDE1, GL_TEXTURE_MAG_FILTER = 0x2800, GL_TEXTURE_MIN_FILTER = 0x2801, GL_TEXTURE_WRAP_S = 0x2802,
	GL_TEXTURE_WRAP_T = 0x2803, GL_REPEAT = 0x2901, GL_CLAMP_TO_EDGE = 0x812F, GL_TEXTURE0 = 0x84C0,
	GL_ARRAY_BUFFER = 0x8892, GL_ELEMENT_ARRAY_BUFFER = 0x8893, GL_STATIC_DRAW = 0x88E4,
	GL_FRAGMENT_SHADER = 0x8B30, GL_VERTEX_SHADER = 0x8B31, GL_COMPILE_STATUS = 0x8B81, GL_LINK_STATUS = 0x8B82,
	GL_FRAMEBUFFER = 0x8D40, GL_RENDERBUFFER = 0x8D41, GL_COLOR_ATTACHMENT0 = 0x8CE0,
	GL_DEPTH_ATTACHMENT = 0x8D00, GL_DEPTH_STENCIL_ATTACHMENT = 0x821A, GL_FRAMEBUFFER_COMPLETE = 0x8CD5,
	GL_READ_FRAMEBUFFER = 0x8CA8, GL_DRAW_FRAMEBUFFER = 0x8CA9,
	GL_TEXTURE_CUBE_MAP = 0x8513, GL_TEXTURE_CUBE_MAP_POSITIVE_X = 0x8515, GL_TEXTURE_3D = 0x806F,
	GL_TEXTURE_2D_ARRAY = 0x8C1A, GL_TEXTURE_WRAP_R = 0x8072, GL_MIRRORED_REPEAT = 0x8370,
	GL_TEXTURE_COMPARE_MODE = 0x884C, GL_COMPARE_REF_TO_TEXTURE = 0x884E, GL_TEXTURE_COMPARE_FUNC = 0x884D,
	GL_DEPTH_COMPONENT = 0x1902, GL_PRIMITIVE_RESTART_FIXED_INDEX = 0x8D69, GL_LINE_STRIP = 0x3,
	GL_ANY_SAMPLES_PASSED = 0x8C2F, GL_QUERY_RESULT = 0x8866,
	GL_COMPRESSED_RGBA_S3TC_DXT1 = 0x83F1, GL_COMPRESSED_RGBA_S3TC_DXT5 = 0x83F3, GL_COMPRESSED_RED_RGTC1 = 0x8DBB,
	GL_COMPRESSED_RG_RGTC2 = 0x8DBD, GL_COMPRESSED_RGBA_BPTC_UNORM = 0x8E8C, GL_COMPRESSED_RGB_BPTC_UNSIGNED_FLOAT = 0x8E8F,
	GL_COMPRESSED_R11_EAC = 0x9270, GL_COMPRESSED_RG11_EAC = 0x9272, GL_COMPRESSED_RGB8_ETC2 = 0x9274,
	GL_COMPRESSED_SRGB8_ETC2 = 0x9275, GL_COMPRESSED_RGB8_PUNCHTHROUGH_ALPHA1_ETC2 = 0x9276, GL_COMPRESSED_RGBA8_ETC2_EAC = 0x9278,
	GL_TRANSFORM_FEEDBACK_BUFFER = 0x8C8E, GL_INTERLEAVED_ATTRIBS = 0x8C8C, GL_RASTERIZER_DISCARD = 0x8C89,
	GL_TRANSFORM_FEEDBACK_PRIMITIVES_WRITTEN = 0x8C88,
	GL_PATCHES = 0xE, GL_PATCH_VERTICES = 0x8E72, GL_TESS_CONTROL_SHADER = 0x8E88, GL_TESS_EVALUATION_SHADER = 0x8E87,
	GL_GEOMETRY_SHADER = 0x8DD9, GL_TRIANGLE_STRIP_ADJACENCY = 0xD,
	GL_COMPUTE_SHADER = 0x91B9, GL_R32UI = 0x8236, GL_RED_INTEGER = 0x8D94, GL_READ_WRITE = 0x88BA, GL_TEXTURE_FETCH_BARRIER_BIT = 0x8,
};

#define GL_FUNCTIONS(X) \
	X(void, ActiveTexture, (GLenum texture)) \
	X(void, AttachShader, (GLuint program, GLuint shader)) \
	X(void, BlitFramebuffer, (GLint x0, GLint y0, GLint x1, GLint y1, GLint to_x0, GLint to_y0, GLint to_x1, GLint to_y1, \
				  GLbitfield mask, GLenum filter)) \
	X(void, RenderbufferStorageMultisample, (GLenum target, GLsizei samples, GLenum format, GLsizei width, GLsizei height)) \
	X(void, BeginQuery, (GLenum target, GLuint query)) \
	X(void, EndQuery, (GLenum target)) \
	X(void, GenQueries, (GLsizei n, GLuint *queries)) \
	X(void, GetQueryObjectuiv, (GLuint query, GLenum name, GLuint *value)) \
	X(void, TexImage3D, (GLenum target, GLint level, GLint internal, GLsizei width, GLsizei height, GLsizei depth, \
			     GLint border, GLenum format, GLenum type, const void *pixels)) \
	X(void, BindAttribLocation, (GLuint program, GLuint index, const char *name)) \
	X(void, BindBuffer, (GLenum target, GLuint buffer)) \
	X(void, BindFramebuffer, (GLenum target, GLuint framebuffer)) \
	X(void, BindRenderbuffer, (GLenum target, GLuint renderbuffer)) \
	X(void, BindTexture, (GLenum target, GLuint texture)) \
	X(void, BlendFunc, (GLenum source, GLenum destination)) \
	X(void, BufferData, (GLenum target, GLsizeiptr size, const void *data, GLenum usage)) \
	X(GLenum, CheckFramebufferStatus, (GLenum target)) \
	X(void, Clear, (GLbitfield mask)) \
	X(void, ClearColor, (GLfloat red, GLfloat green, GLfloat blue, GLfloat alpha)) \
	X(void, ClearDepthf, (GLfloat depth)) \
	X(void, ClearStencil, (GLint value)) \
	X(void, ColorMask, (GLboolean red, GLboolean green, GLboolean blue, GLboolean alpha)) \
	X(void, CompileShader, (GLuint shader)) \
	X(GLuint, CreateProgram, (void)) \
	X(GLuint, CreateShader, (GLenum type)) \
	X(void, CullFace, (GLenum mode)) \
	X(void, DepthFunc, (GLenum function)) \
	X(void, Disable, (GLenum cap)) \
	X(void, DrawArrays, (GLenum mode, GLint first, GLsizei count)) \
	X(void, DrawArraysInstanced, (GLenum mode, GLint first, GLsizei count, GLsizei instances)) \
	X(void, DrawElements, (GLenum mode, GLsizei count, GLenum type, const void *indices)) \
	X(void, DeleteTextures, (GLsizei n, const GLuint *textures)) \
	X(void, DeleteFramebuffers, (GLsizei n, const GLuint *framebuffers)) \
	X(void, EGLImageTargetTexture2DOES, (GLenum target, void *image)) \
	X(void, Enable, (GLenum cap)) \
	X(void, EnableVertexAttribArray, (GLuint index)) \
	X(void, DisableVertexAttribArray, (GLuint index)) \
	X(void, Finish, (void)) \
	X(void, Flush, (void)) \
	X(void, FramebufferTexture2D, (GLenum target, GLenum attachment, GLenum kind, GLuint texture, GLint level)) \
	X(void, FramebufferRenderbuffer, (GLenum target, GLenum attachment, GLenum kind, GLuint renderbuffer)) \
	X(void, GenBuffers, (GLsizei n, GLuint *buffers)) \
	X(void, GenFramebuffers, (GLsizei n, GLuint *framebuffers)) \
	X(void, GenRenderbuffers, (GLsizei n, GLuint *renderbuffers)) \
	X(void, GenTextures, (GLsizei n, GLuint *textures)) \
	X(void, GenerateMipmap, (GLenum target)) \
	X(GLenum, GetError, (void)) \
	X(void, GetProgramInfoLog, (GLuint program, GLsizei size, GLsizei *length, char *log)) \
	X(void, GetProgramiv, (GLuint program, GLenum name, GLint *value)) \
	X(void, GetShaderInfoLog, (GLuint shader, GLsizei size, GLsizei *length, char *log)) \
	X(void, GetShaderiv, (GLuint shader, GLenum name, GLint *value)) \
	X(const GLubyte *, GetString, (GLenum name)) \
	X(GLint, GetUniformLocation, (GLuint program, const char *name)) \
	X(void, LinkProgram, (GLuint program)) \
	X(void, ReadPixels, (GLint x, GLint y, GLsizei w, GLsizei h, GLenum format, GLenum type, void *pixels)) \
	X(void, RenderbufferStorage, (GLenum target, GLenum format, GLsizei width, GLsizei height)) \
	X(void, Scissor, (GLint x, GLint y, GLsizei width, GLsizei height)) \
	X(void, ShaderSource, (GLuint shader, GLsizei count, const char *const *text, const GLint *length)) \
	X(void, StencilFunc, (GLenum function, GLint reference, GLuint mask)) \
	X(void, StencilOp, (GLenum fail, GLenum depth_fail, GLenum pass)) \
	X(void, TexImage2D, (GLenum target, GLint level, GLint internal, GLsizei width, GLsizei height, GLint border, \
			     GLenum format, GLenum type, const void *pixels)) \
	X(void, TexParameteri, (GLenum target, GLenum name, GLint value)) \
	X(void, Uniform1f, (GLint location, GLfloat x)) \
	X(void, Uniform1i, (GLint location, GLint x)) \
	X(void, Uniform4f, (GLint location, GLfloat x, GLfloat y, GLfloat z, GLfloat w)) \
	X(void, UniformMatrix4fv, (GLint location, GLsizei count, GLboolean transpose, const GLfloat *value)) \
	X(void, UseProgram, (GLuint program)) \
	X(void, VertexAttribPointer, (GLuint index, GLint size, GLenum type, GLboolean normalized, GLsizei stride, \
				      const void *pointer)) \
	X(void, BeginTransformFeedback, (GLenum mode)) \
	X(void, EndTransformFeedback, (void)) \
	X(void, TransformFeedbackVaryings, (GLuint program, GLsizei count, const char *const *names, GLenum mode)) \
	X(void, BindBufferBase, (GLenum target, GLuint index, GLuint buffer)) \
	X(void, CompressedTexImage2D, (GLenum target, GLint level, GLenum internal, GLsizei width, GLsizei height, GLint border, \
				       GLsizei bytes, const void *data)) \
	X(void, PatchParameteri, (GLenum name, GLint value)) \
	X(void, LineWidth, (GLfloat width)) \
	X(void, TexStorage2D, (GLenum target, GLsizei levels, GLenum format, GLsizei width, GLsizei height)) \
	X(void, TexSubImage2D, (GLenum target, GLint level, GLint x, GLint y, GLsizei width, GLsizei height, GLenum format, \
				GLenum type, const void *pixels)) \
	X(void, BindImageTexture, (GLuint unit, GLuint texture, GLint level, GLboolean layered, GLint layer, GLenum access, \
				   GLenum format)) \
	X(void, DispatchCompute, (GLuint x, GLuint y, GLuint z)) \
	X(void, MemoryBarrier, (GLbitfield barriers)) \
	X(void, Viewport, (GLint x, GLint y, GLsizei width, GLsizei height))

#define GL_DECLARE(result, name, arguments) extern result (*gl##name) arguments;
GL_FUNCTIONS(GL_DECLARE)

/* Prints what failed, and ends the program. */
__attribute__((noreturn)) void gl_fail(const char *what);
/* A context without a surface, on the device whose render node GL_DEVICE names, else on the first; ends the program where there is
 * none. */
void gl_open(void);
/* An entry point of EGL's or an extension's; NULL where there is none. */
void *gl_proc(const char *name);
/* The EGLDisplay of the context. */
void *gl_display(void);
/* A framebuffer with colour, and with depth and stencil. */
void gl_framebuffer(int width, int height);
GLuint gl_program(const char *vertex, const char *fragment);
struct gl_stage {
	GLenum kind;
	const char *text;
};
/* Of `count` stages, linked and in use; what `feedback` names is captured, if it is not NULL. */
GLuint gl_program_of(const struct gl_stage *stages, int count, const char *feedback);
/* A 2-D texture of `size` by `size` texels with a pattern of colours, with its mip levels. */
GLuint gl_texture(int size, int min_filter, int mag_filter);
/* Reads the framebuffer, RGBA, lowest row first. */
void gl_read(uint8_t *pixels, int width, int height);
/* Writes the framebuffer as a PAM with alpha, lowest row first. */
void gl_save(const char *path, int width, int height);

#endif
