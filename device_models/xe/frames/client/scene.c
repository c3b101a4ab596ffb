#include "scene.h"

#include "gl.h"

#include <math.h>

static const char vertex_text[] =
	"#version 300 es\n"
	"layout(location = 0) in vec3 place; layout(location = 1) in vec3 normal; layout(location = 2) in vec3 colour;\n"
	"uniform vec4 turn; uniform vec4 lens; out vec3 shade;\n"
	"void main() {\n"
	"  if (lens.w == 0.0) { gl_Position = vec4(place.x, -place.y, 0.999, 1); shade = colour * lens.rgb; return; }\n"
	"  mat3 about_y = mat3(turn.x, 0, -turn.y, 0, 1, 0, turn.y, 0, turn.x);\n"
	"  mat3 about_x = mat3(1, 0, 0, 0, turn.z, turn.w, 0, -turn.w, turn.z);\n"
	"  vec3 at = about_x * about_y * place - vec3(0, 0, 4.5), facing = about_x * about_y * normal;\n"
	"  gl_Position = vec4(at.x * lens.x, -at.y * lens.y, -1.2 * at.z - 2.2, -at.z);\n"
	"  shade = colour * (0.25 + 0.75 * max(0.0, dot(facing, normalize(vec3(0.4, 0.6, 1.0)))));\n"
	"}\n";
static const char fragment_text[] =
	"#version 300 es\nprecision highp float; in vec3 shade; out vec4 result; void main() { result = vec4(shade, 1); }\n";

enum { BACKGROUND = 6, CUBE = 36, FLOATS = 9 };
static GLuint turn, lens;

static float *vertex(float *at, float x, float y, float z, const float normal[3], const float colour[3])
{
	const float words[FLOATS] = {x, y, z, normal[0], normal[1], normal[2], colour[0], colour[1], colour[2]};

	memcpy(at, words, sizeof words);
	return at + FLOATS;
}

static float *square(float *at, int axis, float side, const float colour[3])
{
	static const float corners[6][2] = {{-1, -1}, {1, -1}, {-1, 1}, {-1, 1}, {1, -1}, {1, 1}};

	for (int i = 0; i < 6; i++) {
		float place[3], normal[3] = {0};
		place[axis] = normal[axis] = side;
		place[(axis + 1) % 3] = corners[i][0];
		place[(axis + 2) % 3] = corners[i][1];
		at = vertex(at, place[0], place[1], place[2], normal, colour);
	}
	return at;
}

void scene_open(void)
{
	static const float faces[6][3] = {
		{0.9f, 0.2f, 0.2f}, {1, 0.6f, 0.1f}, {0.2f, 0.8f, 0.3f}, {0.9f, 0.9f, 0.3f}, {0.2f, 0.4f, 1}, {0.8f, 0.3f, 0.9f},
	};
	static const float up[3] = {1, 1, 1}, low[3] = {0.35f, 0.35f, 0.35f}, none[3] = {0};
	float data[(BACKGROUND + CUBE) * FLOATS], *at = data;
	GLuint buffer, program = gl_program(vertex_text, fragment_text);

	at = vertex(at, -1, -1, 0, none, low);
	at = vertex(at, 1, -1, 0, none, low);
	at = vertex(at, -1, 1, 0, none, up);
	at = vertex(at, -1, 1, 0, none, up);
	at = vertex(at, 1, -1, 0, none, low);
	at = vertex(at, 1, 1, 0, none, up);
	for (int face = 0; face < 6; face++)
		at = square(at, face / 2, face % 2 ? 1 : -1, faces[face]);
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ARRAY_BUFFER, buffer);
	glBufferData(GL_ARRAY_BUFFER, sizeof data, data, GL_STATIC_DRAW);
	for (int i = 0; i < 3; i++) {
		glVertexAttribPointer(i, 3, GL_FLOAT, 0, FLOATS * sizeof(float), (void *)(3 * i * sizeof(float)));
		glEnableVertexAttribArray(i);
	}
	turn = glGetUniformLocation(program, "turn");
	lens = glGetUniformLocation(program, "lens");
}

void scene_draw(unsigned frame, int width, int height, unsigned hue)
{
	static const float hues[4][3] = {{0.3f, 0.6f, 0.9f}, {0.9f, 0.7f, 0.4f}, {0.5f, 0.8f, 0.5f}, {0.8f, 0.5f, 0.7f}};
	const float *tint = hues[hue % 4], about_y = 0.5f + 0.3f * frame, about_x = 0.45f;

	glViewport(0, 0, width, height);
	glClear(GL_DEPTH_BUFFER_BIT);
	glEnable(GL_DEPTH_TEST);
	glUniform4f(lens, tint[0], tint[1], tint[2], 0);
	glDrawArrays(GL_TRIANGLES, 0, BACKGROUND);
	glUniform4f(turn, cosf(about_y), sinf(about_y), cosf(about_x), sinf(about_x));
	glUniform4f(lens, 2.0f * height / width, 2, 0, 1);
	glDrawArrays(GL_TRIANGLES, BACKGROUND, CUBE);
}
