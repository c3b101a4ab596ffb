/* Pictures for a comparison of two drivers: scenes FOLDER NAME...
 *
 * Each scene is drawn into a framebuffer of its own and saved as FOLDER/NAME.pam. */
#include "scenes.h"

#include <time.h>

static const char plain_vs[] =
	"#version 300 es\n"
	"layout(location = 0) in vec4 place; layout(location = 1) in vec4 colour; out vec4 shade;\n"
	"void main() { gl_Position = place; shade = colour; }\n";
static const char plain_fs[] =
	"#version 300 es\nprecision highp float; in vec4 shade; out vec4 result; void main() { result = shade; }\n";

void attribute(GLuint index, int size, const float *data, int bytes)
{
	GLuint buffer;
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ARRAY_BUFFER, buffer);
	glBufferData(GL_ARRAY_BUFFER, bytes, data, GL_STATIC_DRAW);
	glVertexAttribPointer(index, size, GL_FLOAT, 0, 0, NULL);
	glEnableVertexAttribArray(index);
}

void clear(void)
{
	glClearColor(0.25f, 0.5f, 0.75f, 1);
	glClear(GL_COLOR_BUFFER_BIT);
}

static void triangle(void)
{
	static const float places[] = {-0.8f, -0.7f, 0.9f, -0.5f, 0.1f, 0.8f};
	static const float colours[] = {1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1};
	clear();
	gl_program(plain_vs, plain_fs);
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_TRIANGLES, 0, 3);
}

static const char texture_vs[] =
	"#version 300 es\n"
	"layout(location = 0) in vec4 place; layout(location = 1) in vec2 where; out vec2 at;\n"
	"void main() { gl_Position = place; at = where; }\n";
static const char texture_fs[] =
	"#version 300 es\nprecision highp float; in vec2 at; uniform sampler2D image; out vec4 result;\n"
	"void main() { result = texture(image, at); }\n";

static void textured(int min_filter, int mag_filter, float repeat)
{
	static const float places[] = {-0.9f, -0.9f, 0.9f, -0.9f, -0.9f, 0.9f, 0.9f, 0.9f};
	const float wheres[] = {0, 0, repeat, 0, 0, repeat, repeat, repeat};
	clear();
	gl_program(texture_vs, texture_fs);
	gl_texture(32, min_filter, mag_filter);
	attribute(0, 2, places, sizeof places);
	attribute(1, 2, wheres, sizeof wheres);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
}

static void nearest(void) { textured(GL_NEAREST, GL_NEAREST, 1); }
static void linear(void) { textured(GL_LINEAR, GL_LINEAR, 1); }
static void mipmap(void) { textured(GL_LINEAR_MIPMAP_LINEAR, GL_LINEAR, 20); }

static void depth(void)
{
	static const float places[] = {
		-0.9f, -0.9f, -0.5f, 0.9f, -0.9f, 0.5f, 0, 0.9f, 0,
		-0.9f, 0.7f, 0.4f, 0.9f, 0.7f, -0.4f, 0, -0.9f, 0.1f,
	};
	static const float colours[] = {1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1};
	clear();
	glClear(GL_DEPTH_BUFFER_BIT);
	glEnable(GL_DEPTH_TEST);
	gl_program(plain_vs, plain_fs);
	attribute(0, 3, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_TRIANGLES, 0, 6);
	glDisable(GL_DEPTH_TEST);
}

static void blend(void)
{
	static const float places[] = {-0.9f, -0.9f, 0.9f, -0.9f, 0, 0.9f, -0.9f, 0.7f, 0.9f, 0.7f, 0, -0.9f};
	static const float colours[] = {1, 0, 0, 0.5f, 1, 0, 0, 0.2f, 1, 1, 0, 0.8f, 0, 1, 0, 0.5f, 0, 1, 1, 0.1f, 0, 1, 0, 0.9f};
	clear();
	glEnable(GL_BLEND);
	glBlendFunc(GL_SRC_ALPHA, GL_ONE_MINUS_SRC_ALPHA);
	gl_program(plain_vs, plain_fs);
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_TRIANGLES, 0, 6);
	glDisable(GL_BLEND);
}

static void stencil(void)
{
	static const float places[] = {-0.9f, -0.9f, 0.9f, -0.9f, 0, 0.9f, -0.9f, 0.7f, 0.9f, 0.7f, 0, -0.9f};
	static const float colours[] = {1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1};
	clear();
	glClear(GL_STENCIL_BUFFER_BIT);
	glEnable(GL_STENCIL_TEST);
	gl_program(plain_vs, plain_fs);
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glStencilFunc(GL_ALWAYS, 3, 0xFF);
	glStencilOp(GL_KEEP, GL_KEEP, GL_REPLACE);
	glDrawArrays(GL_TRIANGLES, 0, 3);
	glStencilFunc(GL_EQUAL, 3, 0xFF);
	glStencilOp(GL_KEEP, GL_KEEP, GL_KEEP);
	glDrawArrays(GL_TRIANGLES, 3, 3);
	glDisable(GL_STENCIL_TEST);
}

static void scissor(void)
{
	glEnable(GL_SCISSOR_TEST);
	glScissor(20, 30, 77, 51);
	triangle();
	glDisable(GL_SCISSOR_TEST);
}

static void multiply(float *out, const float *a, const float *b)
{
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++) {
			float sum = 0;
			for (int k = 0; k < 4; k++)
				sum += a[4 * k + j] * b[4 * i + k];
			out[4 * i + j] = sum;
		}
}

static const char cube_vs[] =
	"#version 300 es\n"
	"layout(location = 0) in vec3 place; layout(location = 1) in vec3 normal; layout(location = 2) in vec2 where;\n"
	"uniform mat4 projection, model; out vec2 at; out vec3 facing;\n"
	"void main() { gl_Position = projection * model * vec4(place, 1); at = where; facing = mat3(model) * normal; }\n";
static const char cube_fs[] =
	"#version 300 es\nprecision highp float; in vec2 at; in vec3 facing; uniform sampler2D image; uniform float holes;\n"
	"out vec4 result;\n"
	"void main() {\n"
	"  if (holes > 0.0 && length(fract(at * 4.0) - 0.5) < 0.25) discard;\n"
	"  float light = 0.2 + 0.8 * max(0.0, dot(normalize(facing), normalize(vec3(0.5, 0.7, 1.0))));\n"
	"  float wave = 0.0; for (int i = 1; i < 4; i++) wave += sin(at.x * 6.0 * float(i)) / float(i);\n"
	"  result = vec4(texture(image, at).rgb * light + 0.05 * wave, 1);\n"
	"}\n";

static void cube_with(float holes)
{
	float places[72], normals[72], wheres[48];
	uint16_t indices[36];
	for (int face = 0; face < 6; face++)
		for (int corner = 0; corner < 4; corner++) {
			int axis = face / 2, at = 3 * (4 * face + corner);
			float side = face % 2 ? 1 : -1, u = corner & 1 ? 1 : -1, v = corner & 2 ? 1 : -1;
			places[at + axis] = side;
			places[at + (axis + 1) % 3] = u * side;
			places[at + (axis + 2) % 3] = v;
			normals[at + axis] = side;
			normals[at + (axis + 1) % 3] = normals[at + (axis + 2) % 3] = 0;
			wheres[2 * (4 * face + corner)] = (u + 1) / 2;
			wheres[2 * (4 * face + corner) + 1] = (v + 1) / 2;
		}
	for (int face = 0; face < 6; face++) {
		static const int order[] = {0, 1, 2, 2, 1, 3};
		for (int i = 0; i < 6; i++)
			indices[6 * face + i] = 4 * face + order[i];
	}
	const float near = 1, far = 10;
	const float projection[16] = {
		2, 0, 0, 0, 0, 2, 0, 0, 0, 0, -(far + near) / (far - near), -1, 0, 0, -2 * far * near / (far - near), 0,
	};
	/* Turned by 0.6 about x and by 0.9 about y. */
	const float cos_x = 0.825335615f, sin_x = 0.564642473f, cos_y = 0.621609968f, sin_y = 0.783326910f;
	const float about_x[16] = {1, 0, 0, 0, 0, cos_x, sin_x, 0, 0, -sin_x, cos_x, 0, 0, 0, 0, 1};
	const float about_y[16] = {cos_y, 0, -sin_y, 0, 0, 1, 0, 0, sin_y, 0, cos_y, 0, 0, 0, 0, 1};
	float model[16];
	multiply(model, about_x, about_y);
	model[14] = -5;
	clear();
	glClear(GL_DEPTH_BUFFER_BIT);
	glEnable(GL_DEPTH_TEST);
	GLuint program = gl_program(cube_vs, cube_fs);
	glUniformMatrix4fv(glGetUniformLocation(program, "projection"), 1, 0, projection);
	glUniformMatrix4fv(glGetUniformLocation(program, "model"), 1, 0, model);
	glUniform1f(glGetUniformLocation(program, "holes"), holes);
	gl_texture(64, GL_LINEAR, GL_LINEAR);
	attribute(0, 3, places, sizeof places);
	attribute(1, 3, normals, sizeof normals);
	attribute(2, 2, wheres, sizeof wheres);
	GLuint buffer;
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffer);
	glBufferData(GL_ELEMENT_ARRAY_BUFFER, sizeof indices, indices, GL_STATIC_DRAW);
	glDrawElements(GL_TRIANGLES, 36, GL_UNSIGNED_SHORT, NULL);
	glDisableVertexAttribArray(2);
	glDisable(GL_DEPTH_TEST);
}

static void cube(void) { cube_with(0); }
static void holes(void) { cube_with(1); }

/* Triangles that reach behind the eye, in perspective. */
static void clipped(void)
{
	static const float places[] = {-0.9f, -0.5f, 0.2f, 1, 0.9f, -0.5f, 0.2f, 1, 0, 2, -1.5f, -0.6f};
	static const float colours[] = {1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1};
	clear();
	gl_program(plain_vs, plain_fs);
	attribute(0, 4, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_TRIANGLES, 0, 3);
}

static void points(void)
{
	static const float places[] = {-0.7f, -0.6f, 0.3f, 0.2f, 0.8f, -0.5f, -0.4f, 0.7f};
	static const float colours[] = {1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1};
	clear();
	gl_program("#version 300 es\nlayout(location = 0) in vec4 place; layout(location = 1) in vec4 colour; out vec4 shade;\n"
		   "void main() { gl_Position = place; shade = colour; gl_PointSize = 5.0 + 20.0 * colour.g; }\n",
		   "#version 300 es\nprecision highp float; in vec4 shade; out vec4 result;\n"
		   "void main() { result = shade * vec4(gl_PointCoord, 1, 1); }\n");
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_POINTS, 0, 4);
}

static void lines(void)
{
	static const float places[] = {-0.9f, -0.8f, 0.7f, -0.3f, 0.7f, -0.3f, 0.2f, 0.9f, -0.9f, 0.5f, 0.9f, 0.5f, 0.4f, 0.9f, 0.4f, -0.9f};
	static const float colours[] = {
		1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1,
	};
	clear();
	gl_program(plain_vs, plain_fs);
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glDrawArrays(GL_LINES, 0, 8);
}

static void patterns(GLenum target, int layers, int size)
{
	uint8_t *texels = malloc(4 * size * size * layers);
	GLuint texture;
	for (int i = 0; i < size * size * layers; i++) {
		int x = i % size, y = i / size % size, z = i / size / size;
		uint8_t *texel = texels + 4 * i;
		texel[0] = x * 255 / (size - 1);
		texel[1] = y * 255 / (size - 1);
		texel[2] = z * 255 / (layers - 1);
		texel[3] = 255;
	}
	glGenTextures(1, &texture);
	glBindTexture(target, texture);
	if (target == GL_TEXTURE_CUBE_MAP)
		for (int face = 0; face < 6; face++)
			glTexImage2D(GL_TEXTURE_CUBE_MAP_POSITIVE_X + face, 0, GL_RGBA8, size, size, 0, GL_RGBA, GL_UNSIGNED_BYTE,
				     texels + 4 * size * size * face);
	else
		glTexImage3D(target, 0, GL_RGBA8, size, size, layers, 0, GL_RGBA, GL_UNSIGNED_BYTE, texels);
	glTexParameteri(target, GL_TEXTURE_MIN_FILTER, GL_LINEAR);
	glTexParameteri(target, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
	glTexParameteri(target, GL_TEXTURE_WRAP_S, GL_MIRRORED_REPEAT);
	glTexParameteri(target, GL_TEXTURE_WRAP_T, GL_CLAMP_TO_EDGE);
	free(texels);
}

static void square(const char *fragment)
{
	static const float places[] = {-0.9f, -0.9f, 0.9f, -0.9f, -0.9f, 0.9f, 0.9f, 0.9f};
	static const float wheres[] = {-0.3f, -0.3f, 1.3f, -0.3f, -0.3f, 1.3f, 1.3f, 1.3f};
	gl_program(texture_vs, fragment);
	attribute(0, 2, places, sizeof places);
	attribute(1, 2, wheres, sizeof wheres);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
}

static void cubemap(void)
{
	clear();
	patterns(GL_TEXTURE_CUBE_MAP, 6, 16);
	square("#version 300 es\nprecision highp float; in vec2 at; uniform samplerCube image; out vec4 result;\n"
	       "void main() { vec2 a = (at - 0.5) * 6.0; result = texture(image, vec3(sin(a.x) * cos(a.y), sin(a.y), cos(a.x) * cos(a.y))); }\n");
}

static void volume(void)
{
	clear();
	patterns(GL_TEXTURE_3D, 8, 16);
	square("#version 300 es\nprecision highp float; in vec2 at; uniform highp sampler3D image; out vec4 result;\n"
	       "void main() { result = texture(image, vec3(at, at.x * at.y)); }\n");
}

static void layers(void)
{
	clear();
	patterns(GL_TEXTURE_2D_ARRAY, 8, 16);
	square("#version 300 es\nprecision highp float; in vec2 at; uniform highp sampler2DArray image; out vec4 result;\n"
	       "void main() { result = texture(image, vec3(at, floor(at.x * 8.0))) + texelFetch(image, ivec3(3, 4, 5), 0) * 0.1; }\n");
}

static void shadow(void)
{
	GLuint texture;
	float *texels = malloc(4 * 32 * 32);
	for (int i = 0; i < 32 * 32; i++)
		texels[i] = (i % 32 + i / 32) / 64.0f;
	clear();
	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	glTexImage2D(GL_TEXTURE_2D, 0, GL_DEPTH_COMPONENT32F, 32, 32, 0, GL_DEPTH_COMPONENT, GL_FLOAT, texels);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_COMPARE_MODE, GL_COMPARE_REF_TO_TEXTURE);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_COMPARE_FUNC, GL_LEQUAL);
	square("#version 300 es\nprecision highp float; in vec2 at; uniform highp sampler2DShadow image; out vec4 result;\n"
	       "void main() { result = vec4(texture(image, vec3(at, 0.5)), texture(image, vec3(at, at.x)), textureSize(image, 0).x / 64, 1); }\n");
	free(texels);
}

static void instances(void)
{
	static const float places[] = {-0.1f, -0.1f, 0.1f, -0.1f, 0, 0.1f};
	clear();
	gl_program("#version 300 es\nlayout(location = 0) in vec2 place; flat out int number;\n"
		   "void main() { number = gl_InstanceID * 10 + gl_VertexID;\n"
		   "gl_Position = vec4(place + vec2(gl_InstanceID % 8, gl_InstanceID / 8) * 0.24 - 0.85, 0, 1); }\n",
		   "#version 300 es\nprecision highp float; flat in int number; out vec4 result;\n"
		   "void main() { result = vec4(number % 3, number % 5, number % 7, 4) / 4.0; }\n");
	attribute(0, 2, places, sizeof places);
	glDrawArraysInstanced(GL_TRIANGLES, 0, 3, 60);
}

static void restart(void)
{
	static const float places[] = {-0.9f, -0.9f, -0.5f, -0.9f, -0.9f, 0.8f, -0.5f, 0.8f, 0.1f, -0.8f, 0.9f, -0.8f, 0.1f, 0.9f};
	static const float colours[] = {
		1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1,
	};
	static const uint16_t indices[] = {0, 1, 2, 3, 0xFFFF, 4, 5, 6};
	GLuint buffer, query, passed;
	clear();
	gl_program(plain_vs, plain_fs);
	attribute(0, 2, places, sizeof places);
	attribute(1, 4, colours, sizeof colours);
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffer);
	glBufferData(GL_ELEMENT_ARRAY_BUFFER, sizeof indices, indices, GL_STATIC_DRAW);
	glEnable(GL_PRIMITIVE_RESTART_FIXED_INDEX);
	glGenQueries(1, &query);
	glBeginQuery(GL_ANY_SAMPLES_PASSED, query);
	glDrawElements(GL_TRIANGLE_STRIP, 8, GL_UNSIGNED_SHORT, NULL);
	glEndQuery(GL_ANY_SAMPLES_PASSED);
	glDisable(GL_PRIMITIVE_RESTART_FIXED_INDEX);
	glGetQueryObjectuiv(query, GL_QUERY_RESULT, &passed);
	if (!passed)
		fprintf(stderr, "scenes: no samples passed\n");
}

static GLuint target = 1; /* the framebuffer that main makes */

static void samples(void)
{
	GLuint framebuffer, buffers[2];
	glGenFramebuffers(1, &framebuffer);
	glGenRenderbuffers(2, buffers);
	glBindRenderbuffer(GL_RENDERBUFFER, buffers[0]);
	glRenderbufferStorageMultisample(GL_RENDERBUFFER, 4, GL_RGBA8, SIZE, SIZE);
	glBindRenderbuffer(GL_RENDERBUFFER, buffers[1]);
	glRenderbufferStorageMultisample(GL_RENDERBUFFER, 4, GL_DEPTH24_STENCIL8, SIZE, SIZE);
	glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, buffers[0]);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_DEPTH_STENCIL_ATTACHMENT, GL_RENDERBUFFER, buffers[1]);
	depth();
	glBindFramebuffer(GL_DRAW_FRAMEBUFFER, target);
	glBlitFramebuffer(0, 0, SIZE, SIZE, 0, 0, SIZE, SIZE, GL_COLOR_BUFFER_BIT, GL_NEAREST);
	glBindFramebuffer(GL_FRAMEBUFFER, target);
}

static const struct scene scenes[] = {
	{"clear", clear}, {"triangle", triangle}, {"nearest", nearest}, {"linear", linear}, {"mipmap", mipmap},
	{"depth", depth}, {"blend", blend}, {"stencil", stencil}, {"scissor", scissor}, {"cube", cube}, {"holes", holes},
	{"clipped", clipped}, {"points", points}, {"lines", lines}, {"cubemap", cubemap}, {"volume", volume}, {"layers", layers},
	{"shadow", shadow}, {"instances", instances}, {"restart", restart}, {"samples", samples},
};

static void draw(const struct scene *scene, const char *folder)
{
	char path[256];
	struct timespec begin, end;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	scene->draw();
	glFinish();
	clock_gettime(CLOCK_MONOTONIC, &end);
	snprintf(path, sizeof path, "%s/%s.pam", folder, scene->name);
	gl_save(path, SIZE, SIZE);
	printf("%s %.1f ms\n", scene->name, (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: %s FOLDER NAME...\n", argv[0]);
		return 2;
	}
	gl_open();
	gl_framebuffer(SIZE, SIZE);
	for (int i = 2; i < argc; i++) {
		for (unsigned n = 0; n < sizeof scenes / sizeof *scenes; n++)
			if (!strcmp(argv[i], scenes[n].name) || !strcmp(argv[i], "all"))
				draw(&scenes[n], argv[1]);
		for (const struct scene *scene = stage_scenes; scene->name; scene++)
			if (!strcmp(argv[i], scene->name) || !strcmp(argv[i], "all"))
				draw(scene, argv[1]);
	}
	return 0;
}
