/* Instructions on ud. */
#include "eu.h"
#include "bits.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define T uint32_t
#define U uint32_t
#define S int32_t
#define FLOAT 0
#define NARROW_ONLY

#define W 1
#define NAME(x) x##_ud_1
#include "alu.h"
#include "alu_integer.h"
#include "alu_bits.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 16
#define NAME(x) x##_ud_16
#include "alu.h"
#include "alu_integer.h"
#include "alu_bits.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 32
#define NAME(x) x##_ud_32
#include "alu.h"
#include "alu_integer.h"
#include "alu_bits.h"
#include "alu_compare.h"
#include "alu_end.h"
