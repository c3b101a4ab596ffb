/* Scenes of textures and of stages between vertices and pixels. */
#include "scenes.h"

static const char place_vs[] =
	"#version 320 es\n"
	"layout(location = 0) in vec2 place; void main() { gl_Position = vec4(place, 0, 1); }\n";
static const char shade_fs[] =
	"#version 320 es\nprecision highp float; in vec3 shade; out vec4 result; void main() { result = vec4(shade, 1); }\n";

/* The whole viewport, with coordinates from 0 to 1 in "at". */
static void fill(const char *fragment)
{
	static const float places[] = {-1, -1, 1, -1, -1, 1, 1, 1};
	gl_program("#version 320 es\nlayout(location = 0) in vec2 place; out vec2 at;\n"
		   "void main() { gl_Position = vec4(place, 0, 1); at = place * 0.5 + 0.5; }\n", fragment);
	attribute(0, 2, places, sizeof places);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
}

/* Textures of 32 by 32 texels in all kinds of blocks, with bytes that are anything. */
static void compressed(void)
{
	static const struct {
		GLenum format;
		int bytes;
	} kinds[] = {
		{GL_COMPRESSED_RGBA_S3TC_DXT1, 8}, {GL_COMPRESSED_RGBA_S3TC_DXT5, 16}, {GL_COMPRESSED_RED_RGTC1, 8},
		{GL_COMPRESSED_RG_RGTC2, 16}, {GL_COMPRESSED_RGBA_BPTC_UNORM, 16}, {GL_COMPRESSED_RGB_BPTC_UNSIGNED_FLOAT, 16},
		{GL_COMPRESSED_R11_EAC, 8}, {GL_COMPRESSED_RG11_EAC, 16}, {GL_COMPRESSED_RGB8_ETC2, 8},
		{GL_COMPRESSED_SRGB8_ETC2, 8}, {GL_COMPRESSED_RGB8_PUNCHTHROUGH_ALPHA1_ETC2, 8}, {GL_COMPRESSED_RGBA8_ETC2_EAC, 16},
	};
	uint8_t blocks[64 * 16];
	uint32_t random = 1;
	clear();
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		GLuint texture;
		for (unsigned n = 0; n < sizeof blocks; n++)
			blocks[n] = (random = random * 1664525 + 1013904223) >> 24;
		glGenTextures(1, &texture);
		glBindTexture(GL_TEXTURE_2D, texture);
		glCompressedTexImage2D(GL_TEXTURE_2D, 0, kinds[i].format, 32, 32, 0, 64 * kinds[i].bytes, blocks);
		glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
		glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
		glViewport(32 * (i % 4), 32 * (i / 4), 32, 32);
		fill("#version 320 es\nprecision highp float; in vec2 at; uniform sampler2D image; out vec4 result;\n"
		     "void main() { vec4 c = texture(image, at); result = vec4(c.rgb, 1) * (0.2 + 0.8 * c.a); }\n");
	}
	glViewport(0, 0, SIZE, SIZE);
}

/* Offsets that only the shader knows. */
static void offsets(void)
{
	clear();
	gl_texture(32, GL_NEAREST, GL_NEAREST);
	fill("#version 320 es\nprecision highp float; in vec2 at; uniform sampler2D image; out vec4 result;\n"
	     "void main() { ivec2 away = ivec2(floor(at * 7.0)) - 3; vec2 in_it = at + 0.3 / 128.0;\n"
	     "result = textureGatherOffset(image, in_it, away, 0) * 0.5 + textureOffset(image, in_it, ivec2(3, -2)) * 0.5; }\n");
}

/* Corners that a first draw computes and captures, drawn by a second one. */
static void feedback(void)
{
	static const float places[] = {-0.9f, -0.8f, 0.2f, -0.9f, -0.3f, 0.4f, 0.8f, 0.1f, 0.5f, 0.9f};
	const struct gl_stage stages[] = {
		{GL_VERTEX_SHADER, "#version 320 es\nlayout(location = 0) in vec2 place; out vec4 made;\n"
				   "void main() { made = vec4(place.yx * 0.9, place.x * 0.5, 1); gl_Position = made; }\n"},
		{GL_FRAGMENT_SHADER, "#version 320 es\nprecision highp float; out vec4 result; void main() { result = vec4(1); }\n"},
	};
	GLuint buffer, query, written;
	clear();
	gl_program_of(stages, 2, "made");
	attribute(0, 2, places, sizeof places);
	glGenBuffers(1, &buffer);
	glBindBufferBase(GL_TRANSFORM_FEEDBACK_BUFFER, 0, buffer);
	glBufferData(GL_TRANSFORM_FEEDBACK_BUFFER, 12 * 16, NULL, GL_STATIC_DRAW);
	glGenQueries(1, &query);
	glEnable(GL_RASTERIZER_DISCARD);
	glBeginQuery(GL_TRANSFORM_FEEDBACK_PRIMITIVES_WRITTEN, query);
	glBeginTransformFeedback(GL_TRIANGLES);
	glDrawArrays(GL_TRIANGLES, 0, 3);
	glDrawArrays(GL_TRIANGLES, 2, 3);
	glEndTransformFeedback();
	glEndQuery(GL_TRANSFORM_FEEDBACK_PRIMITIVES_WRITTEN);
	glDisable(GL_RASTERIZER_DISCARD);
	glGetQueryObjectuiv(query, GL_QUERY_RESULT, &written);
	glBindBufferBase(GL_TRANSFORM_FEEDBACK_BUFFER, 0, 0);
	gl_program("#version 300 es\nlayout(location = 0) in vec4 place; out vec4 shade;\n"
		   "void main() { gl_Position = vec4(place.xy, 0, 1); shade = place * 0.5 + 0.5; }\n",
		   "#version 300 es\nprecision highp float; in vec4 shade; out vec4 result; void main() { result = shade; }\n");
	glBindBuffer(GL_ARRAY_BUFFER, buffer);
	glVertexAttribPointer(0, 4, GL_FLOAT, 0, 0, NULL);
	glDrawArrays(GL_TRIANGLES, 0, 3 * written);
}

static void patches(const char *control, const char *evaluation, int corners, const float *places, int count)
{
	const struct gl_stage stages[] = {
		{GL_VERTEX_SHADER, place_vs}, {GL_TESS_CONTROL_SHADER, control}, {GL_TESS_EVALUATION_SHADER, evaluation},
		{GL_FRAGMENT_SHADER, shade_fs},
	};
	gl_program_of(stages, 4, NULL);
	attribute(0, 2, places, 8 * count);
	glPatchParameteri(GL_PATCH_VERTICES, corners);
	glDrawArrays(GL_PATCHES, 0, count);
}

/* Triangles in fractions of segments, with a barrier between the threads of a patch. */
static void triangles(void)
{
	static const float places[] = {-0.9f, -0.9f, 0.8f, -0.7f, -0.6f, 0.3f, 0.9f, -0.2f, 0.7f, 0.9f, -0.5f, 0.8f};
	clear();
	patches("#version 320 es\nlayout(vertices = 3) out; out vec2 corner[]; patch out float more;\n"
		"void main() { corner[gl_InvocationID] = gl_in[gl_InvocationID].gl_Position.xy; barrier();\n"
		"if (gl_InvocationID == 0) { more = corner[2].y - corner[1].y; gl_TessLevelOuter[0] = 3.4; gl_TessLevelOuter[1] = 5.7;\n"
		"gl_TessLevelOuter[2] = 1.0; gl_TessLevelInner[0] = 4.2; } }\n",
		"#version 320 es\nlayout(triangles, fractional_odd_spacing, ccw) in; in vec2 corner[]; patch in float more; out vec3 shade;\n"
		"void main() { vec3 c = gl_TessCoord; vec2 p = corner[0] * c.x + corner[1] * c.y + corner[2] * c.z;\n"
		"gl_Position = vec4(p + 0.05 * sin(p.yx * 20.0), 0, 1); shade = c * (0.6 + 0.2 * more) + 0.1 * float(gl_PrimitiveID); }\n",
		3, places, 6);
}

/* Quads, each side cut otherwise. */
static void quads(void)
{
	static const float places[] = {-0.8f, -0.8f, 0.8f, -0.9f, -0.9f, 0.8f, 0.7f, 0.9f};
	clear();
	patches("#version 320 es\nlayout(vertices = 4) out;\n"
		"void main() { gl_out[gl_InvocationID].gl_Position = gl_in[gl_InvocationID].gl_Position;\n"
		"gl_TessLevelOuter[0] = 2.0; gl_TessLevelOuter[1] = 5.0; gl_TessLevelOuter[2] = 7.0; gl_TessLevelOuter[3] = 1.0;\n"
		"gl_TessLevelInner[0] = 6.0; gl_TessLevelInner[1] = 3.0; }\n",
		"#version 320 es\nlayout(quads, equal_spacing, cw) in; out vec3 shade;\n"
		"void main() { vec2 c = gl_TessCoord.xy; vec4 p = mix(mix(gl_in[0].gl_Position, gl_in[1].gl_Position, c.x),\n"
		"mix(gl_in[2].gl_Position, gl_in[3].gl_Position, c.x), c.y); gl_Position = p; shade = vec3(c, 0.5); }\n",
		4, places, 4);
}

static void isolines(void)
{
	static const float places[] = {-0.8f, -0.8f, 0.8f, 0.7f};
	clear();
	patches("#version 320 es\nlayout(vertices = 2) out;\n"
		"void main() { gl_out[gl_InvocationID].gl_Position = gl_in[gl_InvocationID].gl_Position;\n"
		"gl_TessLevelOuter[0] = 7.0; gl_TessLevelOuter[1] = 6.5; }\n",
		"#version 320 es\nlayout(isolines, fractional_even_spacing) in; out vec3 shade;\n"
		"void main() { vec2 c = gl_TessCoord.xy; gl_Position = vec4(mix(gl_in[0].gl_Position.xy, gl_in[1].gl_Position.xy, c), 0, 1);\n"
		"gl_Position.y += 0.05 * sin(c.x * 9.0); shade = vec3(c, 1); }\n",
		2, places, 2);
}

/* Each triangle of a strip with colours of what lies beside its edges. */
static void neighbours(void)
{
	static const float places[] = {
		-0.9f, -0.8f, -0.95f, 0.9f, -0.7f, 0.6f, -0.3f, 0.95f, -0.2f, -0.7f, 0.1f, -0.95f, 0.3f, 0.5f, 0.5f, 0.9f, 0.8f, -0.6f, 0.9f, 0.2f,
	};
	const struct gl_stage stages[] = {
		{GL_VERTEX_SHADER, place_vs},
		{GL_GEOMETRY_SHADER, "#version 320 es\nlayout(triangles_adjacency) in; layout(triangle_strip, max_vertices = 3) out; out vec3 shade;\n"
				     "void main() { for (int i = 0; i < 6; i += 2) { gl_Position = gl_in[i].gl_Position;\n"
				     "shade = vec3(gl_in[i + 1].gl_Position.xy * 0.5 + 0.5, float(gl_PrimitiveIDIn) / 3.0); EmitVertex(); } }\n"},
		{GL_FRAGMENT_SHADER, shade_fs},
	};
	clear();
	gl_program_of(stages, 3, NULL);
	attribute(0, 2, places, sizeof places);
	glDrawArrays(GL_TRIANGLE_STRIP_ADJACENCY, 0, 10);
}

/* How many of 16,384 invocations an image counts in each of its cells, and the largest of their numbers. */
static void tallies(void)
{
	static const uint32_t zeros[16 * 16];
	const struct gl_stage counting[] = {
		{GL_COMPUTE_SHADER, "#version 320 es\nlayout(local_size_x = 8, local_size_y = 8) in;\n"
				    "layout(r32ui, binding = 0) coherent uniform highp uimage2D cells;\n"
				    "void main() { uvec2 at = gl_GlobalInvocationID.xy; uint value = at.x * 7u ^ at.y * 13u;\n"
				    "ivec2 cell = ivec2(value % 16u, value / 16u % 8u); uint was = imageAtomicAdd(cells, cell, 1u);\n"
				    "if (was < 1000u) imageAtomicMax(cells, cell + ivec2(0, 8), value); }\n"},
	};
	GLuint texture;
	clear();
	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	glTexStorage2D(GL_TEXTURE_2D, 1, GL_R32UI, 16, 16);
	glTexSubImage2D(GL_TEXTURE_2D, 0, 0, 0, 16, 16, GL_RED_INTEGER, GL_UNSIGNED_INT, zeros);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
	glBindImageTexture(0, texture, 0, 0, 0, GL_READ_WRITE, GL_R32UI);
	gl_program_of(counting, 1, NULL);
	glDispatchCompute(16, 16, 1);
	glMemoryBarrier(GL_TEXTURE_FETCH_BARRIER_BIT);
	fill("#version 320 es\nprecision highp float; in vec2 at; uniform highp usampler2D image; out vec4 result;\n"
	     "void main() { uint c = texelFetch(image, ivec2(at * 16.0), 0).r;\n"
	     "result = vec4(c % 16u, c / 16u % 16u, c / 256u % 16u, 15) / 15.0; }\n");
}

/* Wide lines with a number for each, that begin and end beside the centres of pixels and beyond the view. */
static void numbers(void)
{
	static const float places[] = {
		-0.913f, -0.77f, 0.618f, -0.95f, -1.4f, -0.52f, 0.9f, 0.33f, 0.21f, 0.4f, -0.87f, 0.93f, 0.83f, -0.81f, 0.71f, 1.6f,
	};
	clear();
	gl_program("#version 300 es\nlayout(location = 0) in vec2 place; flat out highp int number;\n"
		   "void main() { number = 0x7fffff00 + gl_VertexID * 3; gl_Position = vec4(place, 0, 1); }\n",
		   "#version 300 es\nprecision highp float; flat in highp int number; out vec4 result;\n"
		   "void main() { int n = number - 0x7fffff00; result = vec4(n % 4, n % 6, n % 10, 12) / 12.0; }\n");
	attribute(0, 2, places, sizeof places);
	glLineWidth(5);
	glDrawArrays(GL_LINES, 0, 8);
	glLineWidth(1);
}

/* 10,000 instances of two triangles, side by side. */
static void grid(void)
{
	static const float places[] = {0, 0, 0.02f, 0, 0, 0.02f, 0, 0.02f, 0.02f, 0, 0.02f, 0.02f};
	clear();
	gl_program("#version 300 es\nlayout(location = 0) in vec2 place; flat out int number;\n"
		   "void main() { number = gl_InstanceID; ivec2 cell = ivec2(gl_InstanceID % 100, gl_InstanceID / 100);\n"
		   "gl_Position = vec4(place + vec2(cell - 50) * 0.02, 0, 1); }\n",
		   "#version 300 es\nprecision highp float; flat in int number; out vec4 result;\n"
		   "void main() { result = vec4(number % 3, number % 5, number % 7, 6) / 6.0; }\n");
	attribute(0, 2, places, sizeof places);
	glDrawArraysInstanced(GL_TRIANGLES, 0, 6, 10000);
}

const struct scene stage_scenes[] = {
	{"compressed", compressed}, {"offsets", offsets}, {"feedback", feedback}, {"triangles", triangles},
	{"quads", quads}, {"isolines", isolines}, {"neighbours", neighbours}, {"tallies", tallies},
	{"numbers", numbers}, {"grid", grid}, {NULL, NULL},
};
