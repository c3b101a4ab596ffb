/* Sampler messages: what they name, and the tables in which that is found (compute/sampler.py, compute/sampler_state.py). */
#ifndef EU_SAMPLER_H
#define EU_SAMPLER_H

#include "image.h"

enum surface_type { D1 = 0, D2 = 1, D3 = 2, CUBE = 3, BUFFER = 4, STRUCTURED = 5, NULL_SURFACE = 7 };
enum mip_filter { MIP_NONE = 0, MIP_NEAREST = 1, MIP_LINEAR = 3 };
enum address_mode { WRAP = 0, MIRROR = 1, CLAMP = 2, CUBE_EDGE = 3, BORDER = 4, MIRROR_ONCE = 5, HALF_BORDER = 6 };

#define LEVELS 15

struct texture {
    uint64_t key;
    int32_t type, levels, array, depth; /* depth as the surface state has it */
    struct image level[LEVELS];
};

struct sampler {
    uint64_t key; /* where it lies */
    double bias, least, most;
    double border[4], border_bits[4];
    int32_t seamless; /* at the edges of cubes */
    uint8_t linear, linear_min, mip, shadow;
    uint8_t modes[3], texels;
    int32_t anisotropy; /* the highest ratio; 1: none */
    uint8_t rounds[3], rounds_min[3]; /* coordinates of what is magnified, and of what is made smaller */
};

/* What the sampler messages of a slot's threads can name. */
struct sampling {
    const struct texture *textures;
    const struct sampler *samplers;
    uint32_t texture_count, sampler_count;
    uint64_t stage;    /* where the stage's sampler states begin */
    uint64_t dynamic, bindless;
};

/* NULL: it is not there yet, and the thread has stopped for it. */
static inline const struct texture *texture_of_key(const struct op *op, struct thread *t, uint64_t key)
{
    const struct sampling *known = t->slot->sampling;
    for (uint32_t n = 0; n < known->texture_count; n++)
        if (known->textures[n].key == key)
            return &known->textures[n];
    t->miss_address = key;
    stop(op, t, TEXTURE);
    return NULL;
}

enum fetch { NO_FETCH, LD, LD_LZ, LD2DMS_W, LD_MCS, RESINFO, SAMPLEINFO };

/* What a parameter is (eu/messages/sampler_forms.py). */
enum parameter {
    NO_PARAMETER, PARAMETER_U, PARAMETER_V, PARAMETER_R, ELEMENT, REFERENCE, DETAIL, LEAST,
    U_RIGHT, U_DOWN, V_RIGHT, V_DOWN, OFFSETS, OFFSETS_AND_R, OFFSETS_AND_DETAIL, PARAMETERS
};

/* A message (messages.py); parameters come one after the other, `parameter_bytes` each. */
struct sample {
    uint64_t surface;
    uint32_t a0, surface_shift;
    uint32_t parameter_bytes, channel_bytes, response, length0, length, source1;
    uint8_t pointer, width, header, half, half_parameters, sampler, null0, null1;
    uint8_t least, reference, bias, level, zero, derivatives, fetch, gathers;
    uint8_t query; /* the level of detail is what is asked for */
    uint8_t packed; /* cubes have the array index in the lowest bits of level or bias */
    uint8_t offset_bits, offset_axes, reserved[4];
    uint8_t parameters[16];
};

#endif
