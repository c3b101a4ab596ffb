// SPDX-License-Identifier: MIT
/*
 * The copy engine's copies and fills, compared byte by byte with what this file's own code makes of the same request:
 * linear and tiled surfaces, all pixel sizes, rectangles, both memories.
 */
#include "batch.h"

#define SOURCE_VA GIB(2)
#define DESTINATION_VA GIB(3)

static struct space open_copy(int fd)
{
	return space_open(fd, engine_of(fd, DRM_XE_ENGINE_CLASS_COPY));
}

static void fill_with_noise(uint8_t *bytes, uint64_t size, uint32_t seed)
{
	uint32_t *words = (uint32_t *)bytes;

	for (uint64_t i = 0; i < size / 4; i++)
		words[i] = seed = seed * 1664525 + 1013904223;
}

static void expect_same(const uint8_t *actual, const uint8_t *expected, uint64_t size, const char *what)
{
	if (!memcmp(actual, expected, size))
		return;
	for (uint64_t i = 0; i < size; i++)
		if (actual[i] != expected[i])
			FAIL("%s: byte %#llx is %#x, expected %#x", what, (unsigned long long)i, actual[i], expected[i]);
}

/* Linear copies and fills -------------------------------------------------------------------------------------- */

/* A pair of buffers with noise, bound, and what the second should become. */
struct pair {
	struct space space;
	uint8_t *source, *destination, *expected;
	uint64_t size;
};

static struct pair open_pair(int fd, uint32_t source_placement, uint32_t destination_placement, uint64_t size)
{
	struct pair pair = { .space = open_copy(fd), .size = size, .expected = malloc(size) };
	struct bo source = bo_create(fd, 0, size, source_placement);
	struct bo destination = bo_create(fd, 0, size, destination_placement);

	bind(fd, pair.space.vm, &source, SOURCE_VA);
	bind(fd, pair.space.vm, &destination, DESTINATION_VA);
	pair.source = bo_map(&source);
	pair.destination = bo_map(&destination);
	fill_with_noise(pair.source, size, 1);
	fill_with_noise(pair.destination, size, 2);
	memcpy(pair.expected, pair.destination, size);
	return pair;
}

static void finish_pair(struct pair *pair, const char *what)
{
	space_run(&pair->space);
	expect_same(pair->destination, pair->expected, pair->size, what);
}

static struct pair open_vram_pair(uint64_t size)
{
	int fd = xe_open();

	return open_pair(fd, vram(fd), vram(fd), size);
}

CHECK(mem_copy_of_any_length_and_alignment)
{
	static const struct {
		uint32_t from, to, bytes;
	} cases[] = {
		{ 0, 0, 1 },	    { 0, 0, 64 },      { 0, 0, 4096 },	     { 1, 2, 3 },	 { 63, 0, 130 },
		{ 4095, 1, 2 },	    { 0, 4093, 7 },    { 256, 512, 0x369 },  { 17, 33, 0x3fff }, { 0, 4, 0xfffe },
		{ 5, 4096, 65536 }, { 0, 0, 0x40000 }, { 0x123, 0x456, 0x3fabc },
	};
	struct pair pair = open_vram_pair(MIB(1));

	for (unsigned i = 0; i < COUNT(cases); i++) {
		char what[64];

		snprintf(what, sizeof(what), "%u bytes from %u to %u", cases[i].bytes, cases[i].from, cases[i].to);
		mem_copy(&pair.space.batch, DESTINATION_VA + cases[i].to, SOURCE_VA + cases[i].from, cases[i].bytes);
		memcpy(pair.expected + cases[i].to, pair.source + cases[i].from, cases[i].bytes);
		finish_pair(&pair, what);
	}
}

CHECK(mem_copy_of_pages)
{
	static const uint32_t counts[] = { 1, 17, 256, 4096 };
	struct pair pair = open_vram_pair(MIB(2));

	for (unsigned i = 0; i < COUNT(counts); i++) {
		mem_copy_pages(&pair.space.batch, DESTINATION_VA + 0x300 * i, SOURCE_VA + 0x100 * i, counts[i]);
		memcpy(pair.expected + 0x300 * i, pair.source + 0x100 * i, 256 * counts[i]);
		finish_pair(&pair, "pages of 256 bytes");
	}
}

CHECK(mem_copy_of_matrices)
{
	static const struct {
		uint32_t width, height, source_pitch, destination_pitch;
	} cases[] = { { 2, 2, 4, 8 }, { 200, 127, 256, 320 }, { 64, 64, 64, 4096 }, { 4096, 100, 4096, 4096 }, { 1, 500, 512, 1 } };
	struct pair pair = open_vram_pair(MIB(1));

	for (unsigned i = 0; i < COUNT(cases); i++) {
		mem_copy_matrix(&pair.space.batch, DESTINATION_VA + 64, cases[i].destination_pitch, SOURCE_VA + 128,
				cases[i].source_pitch, cases[i].width, cases[i].height);
		for (uint32_t y = 0; y < cases[i].height; y++)
			memcpy(pair.expected + 64 + y * cases[i].destination_pitch,
			       pair.source + 128 + y * cases[i].source_pitch, cases[i].width);
		finish_pair(&pair, "a matrix");
	}
}

CHECK(mem_copy_between_memories)
{
	int fd = xe_open();
	uint32_t memories[] = { system_memory(fd), vram(fd) };

	for (unsigned from = 0; from < 2; from++) {
		for (unsigned to = 0; to < 2; to++) {
			struct pair pair = open_pair(fd, memories[from], memories[to], MIB(2));

			/* Across every page boundary. */
			mem_copy_pages(&pair.space.batch, DESTINATION_VA + 0x1000, SOURCE_VA + 0x2100, 8000);
			memcpy(pair.expected + 0x1000, pair.source + 0x2100, 8000 * 256);
			finish_pair(&pair, from ? "out of VRAM" : "out of system memory");
		}
	}
}

CHECK(mem_set_of_any_length)
{
	static const struct {
		uint32_t to, bytes;
		uint8_t value;
	} cases[] = { { 0, 1, 0xaa }, { 3, 5, 0x55 }, { 4090, 12, 1 }, { 100, 0xffff, 0x8b }, { 0, 0x40000, 0 }, { 64, 0x3ffff, 0xff } };
	struct pair pair = open_vram_pair(MIB(1));

	for (unsigned i = 0; i < COUNT(cases); i++) {
		mem_set(&pair.space.batch, DESTINATION_VA + cases[i].to, cases[i].bytes, cases[i].value);
		memset(pair.expected + cases[i].to, cases[i].value, cases[i].bytes);
		finish_pair(&pair, "a fill");
	}
}

CHECK(mem_set_of_matrices)
{
	static const struct {
		uint32_t width, height, pitch;
		uint8_t value;
	} cases[] = { { 3, 3, 16, 7 }, { 4096, 64, 4096, 0 }, { 100, 100, 4096, 0xee }, { 1, 300, 1024, 0x12 } };
	struct pair pair = open_vram_pair(MIB(1));

	for (unsigned i = 0; i < COUNT(cases); i++) {
		mem_set_matrix(&pair.space.batch, DESTINATION_VA + 32, cases[i].pitch, cases[i].width, cases[i].height,
			       cases[i].value);
		for (uint32_t y = 0; y < cases[i].height; y++)
			memset(pair.expected + 32 + y * cases[i].pitch, cases[i].value, cases[i].width);
		finish_pair(&pair, "a matrix");
	}
}

/* Surfaces ----------------------------------------------------------------------------------------------------- */

enum tiling { LINEAR, TILE_X, TILE_4, TILE_64 };
static const char *const tiling_names[] = { "linear", "X", "Tile4", "Tile64" };

/*
 * Which bit of the place in a tile's row (X, in bytes) or column (Y) each bit of the offset in the tile is, the highest
 * first: Intel's PRMs, volume "Memory Data Formats", as its GmmLib tables them.
 */
static const char *tile_layout(enum tiling tiling, unsigned bytes_per_pixel)
{
	switch (tiling) {
	case TILE_X:
		return "YYYXXXXXXXXX";
	case TILE_4:
		return "YYXYXXYYXXXX";
	case TILE_64:
		return bytes_per_pixel == 1 ? "YYYXYYXYXXYYXXXX" :
		       bytes_per_pixel <= 4 ? "YYXXYYXYXXYYXXXX" :
					      "YXXXYYXYXXYYXXXX";
	default:
		return "";
	}
}

struct surface {
	enum tiling tiling;
	bool in_system;
	unsigned bytes_per_pixel, width, height; /* in pixels */
	uint32_t pitch; /* bytes */
	uint64_t size, va;
	uint8_t *bytes;
	/* where byte x of a tile's row, and its row y, lie: the bits of either are separate */
	uint32_t tile_width, tile_height, of_x[1024], of_y[256];
};

static void spread(const char *layout, char axis, uint32_t *offsets, uint32_t *extent)
{
	unsigned bits = 0, positions[16];

	for (int i = strlen(layout) - 1; i >= 0; i--)
		if (layout[i] == axis)
			positions[bits++] = strlen(layout) - 1 - i;
	*extent = 1u << bits;
	for (uint32_t value = 0; value < *extent; value++) {
		offsets[value] = 0;
		for (unsigned bit = 0; bit < bits; bit++)
			offsets[value] |= (value >> bit & 1) << positions[bit];
	}
}

static uint64_t offset_in(const struct surface *s, uint32_t x_bytes, uint32_t y)
{
	if (s->tiling == LINEAR)
		return (uint64_t)y * s->pitch + x_bytes;
	uint64_t tile = (uint64_t)(y / s->tile_height) * (s->pitch / s->tile_width) + x_bytes / s->tile_width;
	return tile * s->tile_width * s->tile_height + s->of_x[x_bytes % s->tile_width] + s->of_y[y % s->tile_height];
}

static uint32_t rounded_up(uint32_t value, uint32_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/* Where surfaces are made: a mapped buffer at an address. */
struct canvas {
	struct bo bo;
	bool in_system;
};

#define CANVAS_SIZE MIB(1)

static struct canvas canvas_create(struct space *space, uint64_t va, bool in_system)
{
	uint32_t placement = in_system ? system_memory(space->fd) : vram(space->fd);
	struct canvas canvas = { .bo = bo_create(space->fd, 0, CANVAS_SIZE, placement), .in_system = in_system };

	bind(space->fd, space->vm, &canvas.bo, va);
	bo_map(&canvas.bo);
	return canvas;
}

/* A surface in a canvas, full of noise. */
static struct surface surface_in(struct canvas *canvas, enum tiling tiling, unsigned bytes_per_pixel, unsigned width,
				 unsigned height, uint32_t seed)
{
	struct surface s = {
		.tiling = tiling,
		.in_system = canvas->in_system,
		.bytes_per_pixel = bytes_per_pixel,
		.width = width,
		.height = height,
		.va = canvas->bo.va,
		.bytes = canvas->bo.map,
		.tile_width = 64,
		.tile_height = 1,
	};

	if (tiling != LINEAR) {
		spread(tile_layout(tiling, bytes_per_pixel), 'X', s.of_x, &s.tile_width);
		spread(tile_layout(tiling, bytes_per_pixel), 'Y', s.of_y, &s.tile_height);
	}
	s.pitch = rounded_up(width * bytes_per_pixel, s.tile_width);
	s.size = s.pitch * rounded_up(height, s.tile_height);
	expect_le(s.size, CANVAS_SIZE);
	fill_with_noise(s.bytes, s.size, seed);
	return s;
}

/* Pitches of tiled surfaces are given in dwords. */
static uint32_t pitch_field(const struct surface *s)
{
	return s->tiling == LINEAR ? s->pitch : s->pitch / 4;
}

struct rectangle {
	unsigned x, y, width, height, source_x, source_y;
};

static void copy_here(const struct surface *destination, uint8_t *bytes, const struct surface *source, struct rectangle r)
{
	unsigned pixel = destination->bytes_per_pixel;

	for (unsigned y = 0; y < r.height; y++)
		for (unsigned x = 0; x < r.width; x++)
			memcpy(bytes + offset_in(destination, (r.x + x) * pixel, r.y + y),
			       source->bytes + offset_in(source, (r.source_x + x) * pixel, r.source_y + y), pixel);
}

static uint32_t point(unsigned x, unsigned y)
{
	return x | y << 16;
}

/* Dword 1's depth: 8, 16, 32, 64, 128 bits. */
static uint32_t fast_copy_depth(unsigned bytes_per_pixel)
{
	return bytes_per_pixel == 1 ? 0 : bytes_per_pixel == 2 ? 1 : bytes_per_pixel == 4 ? 3 : bytes_per_pixel == 8 ? 4 : 5;
}

/* Dword 0's depth of the other two. */
static uint32_t color_depth(unsigned bytes_per_pixel)
{
	return bytes_per_pixel == 16 ? 5 : __builtin_ctz(bytes_per_pixel);
}

static void xy_fast_copy(struct batch *b, const struct surface *destination, const struct surface *source, struct rectangle r)
{
	emit(b, BLT(0x42, (uint32_t)source->tiling << 20 | (uint32_t)destination->tiling << 13, 10));
	/* Bits 31 and 30: tiling 2 is Tile4. */
	emit(b, 3u << 30 | fast_copy_depth(destination->bytes_per_pixel) << 24 | MOCS_UNCACHED << 20 | pitch_field(destination));
	emit(b, point(r.x, r.y));
	emit(b, point(r.x + r.width, r.y + r.height));
	emit_address(b, destination->va);
	emit(b, point(r.source_x, r.source_y));
	emit(b, MOCS_UNCACHED << 20 | pitch_field(source));
	emit_address(b, source->va);
}

static uint32_t surface_dimensions(const struct surface *s)
{
	return 1u << 29 | (s->width - 1) << 14 | (s->height - 1);
}

/* Alignment: 16 by 4; no mip tail. */
#define LEVELS (1u << 3 | 15u << 8)

/* The memory a surface lies in has its bit in the commands: 0 local, 1 system. */
static void xy_block_copy(struct batch *b, const struct surface *destination, const struct surface *source, struct rectangle r)
{
	emit(b, BLT(0x41, color_depth(destination->bytes_per_pixel) << 19, 22));
	emit(b, (uint32_t)destination->tiling << 30 | MOCS_UNCACHED << 24 | (pitch_field(destination) - 1));
	emit(b, point(r.x, r.y));
	emit(b, point(r.x + r.width, r.y + r.height));
	emit_address(b, destination->va);
	emit(b, (uint32_t)destination->in_system << 31);
	emit(b, point(r.source_x, r.source_y));
	emit(b, (uint32_t)source->tiling << 30 | MOCS_UNCACHED << 24 | (pitch_field(source) - 1));
	emit_address(b, source->va);
	emit(b, (uint32_t)source->in_system << 31);
	for (unsigned i = 12; i < 16; i++)
		emit(b, 0);
	emit(b, surface_dimensions(destination));
	emit(b, 0);
	emit(b, LEVELS);
	emit(b, surface_dimensions(source));
	emit(b, 0);
	emit(b, LEVELS);
}

static void xy_fast_color(struct batch *b, const struct surface *s, struct rectangle r, const uint32_t color[4])
{
	emit(b, BLT(0x44, color_depth(s->bytes_per_pixel) << 19, 16));
	emit(b, (uint32_t)s->tiling << 30 | MOCS_UNCACHED << 24 | (pitch_field(s) - 1));
	emit(b, point(r.x, r.y));
	emit(b, point(r.x + r.width, r.y + r.height));
	emit_address(b, s->va);
	emit(b, 0);
	for (unsigned i = 0; i < 4; i++)
		emit(b, color[i]);
	emit(b, 0);
	emit(b, 0);
	emit(b, surface_dimensions(s));
	emit(b, 0);
	emit(b, LEVELS);
}

enum command { FAST_COPY, BLOCK_COPY };

/* A space with two canvases. */
struct studio {
	struct space space;
	struct canvas source, destination;
	uint8_t *expected;
};

static struct studio open_studio(int fd, bool from_system, bool to_system)
{
	struct studio studio = { .space = open_copy(fd), .expected = malloc(CANVAS_SIZE) };

	studio.source = canvas_create(&studio.space, SOURCE_VA, from_system);
	studio.destination = canvas_create(&studio.space, DESTINATION_VA, to_system);
	return studio;
}

static void check_copy(struct studio *studio, enum command command, enum tiling from, enum tiling to,
		       unsigned bytes_per_pixel, struct rectangle r)
{
	struct surface source = surface_in(&studio->source, from, bytes_per_pixel, 200, 150, 1);
	struct surface destination = surface_in(&studio->destination, to, bytes_per_pixel, 160, 170, 2);
	char what[96];

	snprintf(what, sizeof(what), "%s to %s, %u bits, %ux%u from %u,%u to %u,%u", tiling_names[from], tiling_names[to],
		 8 * bytes_per_pixel, r.width, r.height, r.source_x, r.source_y, r.x, r.y);
	memcpy(studio->expected, destination.bytes, destination.size);
	copy_here(&destination, studio->expected, &source, r);
	(command == FAST_COPY ? xy_fast_copy : xy_block_copy)(&studio->space.batch, &destination, &source, r);
	space_run(&studio->space);
	expect_same(destination.bytes, studio->expected, destination.size, what);
}

/* Rectangles that begin and end inside tiles; XY_FAST_COPY_BLT wants rows that begin at multiples of 16 bytes. */
static struct rectangle part_of(unsigned bytes_per_pixel)
{
	unsigned unit = 16 / bytes_per_pixel ?: 1;

	return (struct rectangle){ .x = unit, .y = 13, .width = 9 * unit, .height = 101, .source_x = 2 * unit, .source_y = 5 };
}

static const struct rectangle whole = { .width = 160, .height = 150 };

static void check_all_tilings(enum command command)
{
	struct studio studio = open_studio(xe_open(), false, false);

	for (enum tiling from = LINEAR; from <= TILE_64; from++) {
		for (enum tiling to = LINEAR; to <= TILE_64; to++) {
			check_copy(&studio, command, from, to, 4, whole);
			check_copy(&studio, command, from, to, 4, part_of(4));
		}
	}
}

CHECK(fast_copy_of_32_bit_pixels_in_all_tilings)
{
	check_all_tilings(FAST_COPY);
}

CHECK(block_copy_of_32_bit_pixels_in_all_tilings)
{
	check_all_tilings(BLOCK_COPY);
}

static void check_all_pixels(enum command command)
{
	struct studio studio = open_studio(xe_open(), false, false);

	for (unsigned bytes = 1; bytes <= 16; bytes *= 2) {
		check_copy(&studio, command, LINEAR, LINEAR, bytes, part_of(bytes));
		check_copy(&studio, command, LINEAR, TILE_4, bytes, part_of(bytes));
		check_copy(&studio, command, TILE_64, LINEAR, bytes, part_of(bytes));
	}
}

CHECK(fast_copy_of_all_pixel_sizes)
{
	check_all_pixels(FAST_COPY);
}

CHECK(block_copy_of_all_pixel_sizes)
{
	check_all_pixels(BLOCK_COPY);
}

CHECK(block_copy_of_odd_rectangles)
{
	static const struct rectangle odd[] = {
		{ .x = 1, .y = 1, .width = 1, .height = 1, .source_x = 3, .source_y = 7 },
		{ .x = 31, .y = 31, .width = 3, .height = 3, .source_x = 126, .source_y = 127 },
		{ .x = 7, .y = 0, .width = 111, .height = 2, .source_x = 0, .source_y = 31 },
	};
	struct studio studio = open_studio(xe_open(), false, false);

	for (unsigned i = 0; i < COUNT(odd); i++)
		for (enum tiling to = LINEAR; to <= TILE_64; to++)
			check_copy(&studio, BLOCK_COPY, TILE_4, to, 4, odd[i]);
}

CHECK(copies_of_surfaces_between_memories)
{
	int fd = xe_open();
	struct studio in = open_studio(fd, true, false), out = open_studio(fd, false, true), there = open_studio(fd, true, true);

	for (enum command command = FAST_COPY; command <= BLOCK_COPY; command++) {
		check_copy(&in, command, LINEAR, TILE_4, 4, whole);
		check_copy(&out, command, TILE_4, LINEAR, 4, whole);
		check_copy(&there, command, LINEAR, LINEAR, 4, whole);
	}
}

CHECK(a_chain_of_copies_gives_the_picture_back)
{
	int fd = xe_open();
	struct space space = open_copy(fd);
	struct canvas canvases[5];
	struct surface surfaces[4], back;
	struct rectangle all = { .width = 200, .height = 200 };

	for (unsigned i = 0; i < COUNT(canvases); i++)
		canvases[i] = canvas_create(&space, GIB(4) + GIB(1) * i, false);
	for (enum tiling t = LINEAR; t <= TILE_64; t++)
		surfaces[t] = surface_in(&canvases[t], t, 4, 200, 200, t);
	back = surface_in(&canvases[4], LINEAR, 4, 200, 200, 9);
	for (enum tiling t = TILE_X; t <= TILE_64; t++) {
		xy_fast_copy(&space.batch, &surfaces[t], &surfaces[t - 1], all);
		mi_flush_store(&space.batch, data_va(&space, 0), t);
	}
	xy_block_copy(&space.batch, &back, &surfaces[TILE_64], all);
	space_run(&space);
	for (unsigned y = 0; y < 200; y++)
		expect_same(back.bytes + offset_in(&back, 0, y), surfaces[LINEAR].bytes + offset_in(&surfaces[LINEAR], 0, y),
			    800, "a row after the chain");
}

CHECK(fast_color_of_all_tilings_and_pixel_sizes)
{
	static const uint32_t color[4] = { 0x44332211, 0x88776655, 0xccbbaa99, 0x00ffeedd };
	struct rectangle r = { .x = 5, .y = 9, .width = 77, .height = 88 };
	struct studio studio = open_studio(xe_open(), false, false);

	for (enum tiling tiling = LINEAR; tiling <= TILE_64; tiling++) {
		for (unsigned bytes = 1; bytes <= 16; bytes *= 2) {
			struct surface s = surface_in(&studio.destination, tiling, bytes, 130, 130, 3);

			memcpy(studio.expected, s.bytes, s.size);
			for (unsigned y = 0; y < r.height; y++)
				for (unsigned x = 0; x < r.width; x++)
					memcpy(studio.expected + offset_in(&s, (r.x + x) * bytes, r.y + y), color, bytes);
			xy_fast_color(&studio.space.batch, &s, r, color);
			space_run(&studio.space);
			expect_same(s.bytes, studio.expected, s.size, tiling_names[tiling]);
		}
	}
}
