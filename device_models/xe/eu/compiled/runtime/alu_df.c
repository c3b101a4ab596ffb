/* Instructions on df. */
#include "eu.h"
#include "transcendental.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define T double
#define U uint64_t
#define S int64_t
#define FLOAT 1
#define KEEP 0x40u /* of cr0.0, semantics.DENORMAL_BITS */

#define W 1
#define NAME(x) x##_df_1
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 16
#define NAME(x) x##_df_16
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 32
#define NAME(x) x##_df_32
#include "alu.h"
#include "alu_float.h"
#include "alu_math.h"
#include "alu_compare.h"
#include "alu_end.h"
