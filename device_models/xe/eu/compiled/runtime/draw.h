/* Pixels of one draw: from primitives that are set up to what is in render targets and the depth buffer. */
#ifndef EU_DRAW_H
#define EU_DRAW_H

#include "image.h"

#define TARGETS 8
#define QUADS 8 /* of a thread at most */
#define SAMPLES 16
#define OF_ALL_PIXELS 0x0001000100010001ull /* a sample of each pixel of a quad, in its coverage */

/* What the render target writes of one thread have brought, by lane. */
struct output {
    uint32_t alive;             /* lanes that sent anything, were it to no target */
    uint32_t written[TARGETS];  /* lanes */
    uint32_t has_second, has_mask, has_depth;
    uint32_t colours[TARGETS][4][LANES]; /* registers */
    uint32_t second[TARGETS][4][LANES];  /* the second source of dual source blending */
    uint16_t mask[LANES];       /* oMask */
    float depth[LANES];
};

/* A render target write (messages.py). */
struct render_write {
    uint32_t length0, length, source1;
    uint8_t width, header, half, target, null_target, source0_alpha, output_mask, depth;
    uint8_t dual, null0, null1, surface;
    uint8_t ends, reserved[7];
};

enum depth_form { D32_FLOAT = 1, D24_UNORM_X8 = 3, D16_UNORM = 5 };

struct depth_test {
    struct image image;
    uint8_t on, test, write, function, form, bounded, reserved[2];
    double low, high; /* bounds, as the buffer holds them */
};

/* Stencil state of a face. */
struct face {
    uint8_t function, fail, depth_fail, both_pass, test_mask, write_mask, reference, reserved;
};

struct stencil_test {
    struct image image;
    uint8_t on, write, reserved[6];
    struct face back, front;
};

struct equation {
    uint8_t function, source, destination, reserved;
};

struct target {
    struct image image;
    int64_t layers;
    double constant[4]; /* clamped as the sources are */
    struct equation colour, alpha;
    uint8_t present, copies, blends, pre_clamp, post_clamp; /* clamps: 0 none, 1 to 0..1, 2 to -1..1 */
    uint8_t logic;        /* 16: none */
    uint8_t write_all;
    uint8_t alpha_to_one;
    uint8_t write[TEXEL]; /* bits of a texel that are written */
};

/* Memory that no pointer leads to: the caller accesses it, and calls again. */
struct detour {
    uint64_t address;
    uint32_t bytes, access;
    char data[TEXEL];
};
#define DETOURS 4 /* of a pixel: loads and stores of depth and stencil */

struct draw {
    /* primitives, arrays by primitive (render/setup.py) */
    int64_t primitives;
    const double *edges, *perspective, *screen, *depth, *planes, *extent, *offset, *range, *smooth;
    const uint32_t *stipple; /* rows of 32 pixels, bit 31 at the left; NULL: all pixels are drawn */
    const uint8_t *inclusive, *rectangle, *front;
    const int64_t *bounds, *layer, *viewport;
    const float *data;     /* setup data: [primitives][data_registers][16] */
    int64_t plane_count, data_registers;
    /* state */
    int64_t width, polygons, first_register, constant_registers;
    const char *constants;
    const uint32_t *header; /* r0 */
    const char *arfs;
    int64_t arf_bytes, arf_at, dispatch_at, entry;
    const struct kernel *kernel;
    uint32_t modes;
    uint8_t source_depth, source_w, input_coverage, whole_quads, early, alpha_to_coverage, alpha_test, alpha_function;
    double alpha_reference;
    int64_t samples;
    double sample_x[SAMPLES], sample_y[SAMPLES]; /* in a pixel, in subpixels */
    uint32_t sample_mask;
    uint8_t per_sample;       /* a thread shades one sample of each of its quads */
    uint8_t position_offsets; /* 2: of the centroid, 3: of the sample */
    uint8_t sample_offsets, reserved;
    int64_t band, bands; /* quads of which rows of 32 pixels are drawn */
    struct depth_test depth_test;
    struct stencil_test stencil_test;
    struct target targets[TARGETS];
    /* where it is */
    struct slot *threads; /* of one thread: the execution units' map */
    struct slot *fixed;   /* the fixed functions' map; no thread runs in it */
    struct output *output;
    int64_t stage, primitive, x, y, quads, groups;
    /* How far what may miss a page has come: samples of a quad that are tested, and what of them has passed; samples of a quad that
     * are in threads, and what of it is covered; quads that are tested late; targets, lanes and samples that are written. */
    int64_t tested, tested_late, target, lane, sample, placed;
    uint64_t tests_passed, unplaced;
    int64_t quad_primitive[QUADS]; /* of each place */
    uint64_t quad_coverage[QUADS]; /* 16 bits for each pixel: its samples */
    int32_t quad_x[QUADS], quad_y[QUADS];
    uint8_t quad_there[QUADS], quad_sample[QUADS];
    int64_t group_primitive[QUADS];
    int64_t passed, shaded;
    uint64_t miss;
    uint32_t miss_bytes, miss_kind;
    uint32_t detours, loads;
    struct detour detour[DETOURS];
    struct {
        struct count *count;
        uint32_t bytes, first;
    } load[4]; /* of the pixel that is under way: counted when it is done, since one that misses a page is repeated */
};

int eu_compare(int function, double left, double right);
int eu_write_pixel(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample,
                   const float colour[4], const float second[4]);
int eu_is_packed(const struct target *target);
void eu_pack8(const struct image *i, const uint32_t colours[4][LANES], uint32_t *packed);
int eu_write_packed(struct draw *d, const struct target *target, int64_t x, int64_t y, int64_t layer, int64_t sample, uint32_t texel);
int eu_test_pixel(struct draw *d, int64_t x, int64_t y, int64_t layer, int64_t sample, double depth, int front);

#endif
