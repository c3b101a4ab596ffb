#include "windows.h"

static const char vertex_text[] =
	"#version 300 es\n"
	"layout(location = 0) in vec2 place; uniform vec4 box; out vec2 at;\n"
	"void main() { at = place; gl_Position = vec4(box.xy + place * box.zw, 0, 1); }\n";
static const char colour_text[] =
	"#version 300 es\nprecision highp float; in vec2 at; uniform vec4 low, high; out vec4 result;\n"
	"void main() { result = mix(high, low, at.y); }\n";
static const char texture_text[] =
	"#version 300 es\nprecision highp float; in vec2 at; uniform sampler2D image; out vec4 result;\n"
	"void main() { result = vec4(texture(image, at).rgb, 1); }\n";

enum { BORDER = 4, TITLE = 10, MARGIN = 8 };
static int width, height;
static struct {
	GLuint name, box, low, high;
} colour, texture;

void windows_open(int wide, int high)
{
	static const float corners[] = {0, 0, 1, 0, 0, 1, 1, 1};
	GLuint buffer;

	width = wide;
	height = high;
	colour.name = gl_program(vertex_text, colour_text);
	colour.box = glGetUniformLocation(colour.name, "box");
	colour.low = glGetUniformLocation(colour.name, "low");
	colour.high = glGetUniformLocation(colour.name, "high");
	texture.name = gl_program(vertex_text, texture_text);
	texture.box = glGetUniformLocation(texture.name, "box");
	glGenBuffers(1, &buffer);
	glBindBuffer(GL_ARRAY_BUFFER, buffer);
	glBufferData(GL_ARRAY_BUFFER, sizeof corners, corners, GL_STATIC_DRAW);
	glVertexAttribPointer(0, 2, GL_FLOAT, 0, 0, NULL);
	glEnableVertexAttribArray(0);
}

/* Pixels, row 0 at the top and first in memory. */
static void box(GLuint uniform, int x, int y, int wide, int high)
{
	glUniform4f(uniform, 2.0f * x / width - 1, 2.0f * y / height - 1, 2.0f * wide / width, 2.0f * high / height);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
}

static void filled(int x, int y, int wide, int high, const float top[3], const float bottom[3])
{
	glUseProgram(colour.name);
	glUniform4f(colour.high, top[0], top[1], top[2], 1);
	glUniform4f(colour.low, bottom[0], bottom[1], bottom[2], 1);
	box(colour.box, x, y, wide, high);
}

/* The window's content, as large as the frame is, or as the cell lets it be. */
static void draw_window(const struct window *window, unsigned number, int left, int room)
{
	static const float borders[4][3] = {{0.85f, 0.45f, 0.1f}, {0.15f, 0.55f, 0.75f}, {0.4f, 0.65f, 0.2f}, {0.6f, 0.3f, 0.65f}};
	static const float dark[3] = {0.04f, 0.04f, 0.05f};
	const float *border = borders[number % 4];
	int most_wide = room - 2 * (MARGIN + BORDER), most_high = height - 2 * (MARGIN + BORDER) - TITLE;
	int wide = window->width && window->width < most_wide ? window->width : most_wide;
	int high = window->height && window->height < most_high ? window->height : most_high;
	int x = left + (room - wide) / 2, y = (height - high + TITLE) / 2;

	filled(x - BORDER, y - BORDER - TITLE, wide + 2 * BORDER, high + 2 * BORDER + TITLE, border, border);
	if (!window->texture) {
		filled(x, y, wide, high, dark, dark);
		return;
	}
	glUseProgram(texture.name);
	glBindTexture(GL_TEXTURE_2D, window->texture);
	box(texture.box, x, y, wide, high);
}

void windows_draw(const struct window *windows, unsigned count)
{
	static const float top[3] = {0.32f, 0.36f, 0.45f}, bottom[3] = {0.12f, 0.13f, 0.18f};

	glViewport(0, 0, width, height);
	filled(0, 0, width, height, top, bottom);
	for (unsigned number = 0; number < count; number++)
		draw_window(&windows[number], number, width * number / count, width / count);
}

void windows_let_go(void)
{
	static const uint8_t texel[4];
	static GLuint own;

	if (!own) {
		glGenTextures(1, &own);
		glBindTexture(GL_TEXTURE_2D, own);
		glTexImage2D(GL_TEXTURE_2D, 0, GL_RGBA8, 1, 1, 0, GL_RGBA, GL_UNSIGNED_BYTE, texel);
		glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
		glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
	}
	glUseProgram(texture.name);
	glBindTexture(GL_TEXTURE_2D, own);
	/* A pixel that the next picture covers. */
	glViewport(0, 0, width, height);
	box(texture.box, 0, 0, 1, 1);
	glFinish();
}
