/* Instructions on uq. */
#include "eu.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define T uint64_t
#define U uint64_t
#define S int64_t
#define FLOAT 0

#define W 1
#define NAME(x) x##_uq_1
#include "alu.h"
#include "alu_integer.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 16
#define NAME(x) x##_uq_16
#include "alu.h"
#include "alu_integer.h"
#include "alu_compare.h"
#include "alu_end.h"

#define W 32
#define NAME(x) x##_uq_32
#include "alu.h"
#include "alu_integer.h"
#include "alu_compare.h"
#include "alu_end.h"
