/* Instructions on f. */
#include "eu.h"
#include "transcendental.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define T float
#define U uint32_t
#define S int32_t
#define FLOAT 1
#define KEEP 0x80u /* of cr0.0, semantics.DENORMAL_BITS */

#define W 1
#define NAME(x) x##_f_1
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 16
#define NAME(x) x##_f_16
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 32
#define NAME(x) x##_f_32
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"
