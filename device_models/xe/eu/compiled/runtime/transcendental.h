/* log2, exp2, sin, cos and pow in f64, the same steps as reference/transcendental.py: none may be fused or reordered. */
#ifndef EU_TRANSCENDENTAL_H
#define EU_TRANSCENDENTAL_H

#include <math.h>

#define LN2 0.6931471805599453
#define PI 3.141592653589793
#define COUNT(terms) ((int)(sizeof(terms) / sizeof(terms)[0]))

static const double EXP_TERMS[] = {
    1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800,
    1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
};
static const double LOG_TERMS[] = {
    2.0 / 1 / LN2, 2.0 / 3 / LN2, 2.0 / 5 / LN2, 2.0 / 7 / LN2, 2.0 / 9 / LN2, 2.0 / 11 / LN2, 2.0 / 13 / LN2,
    2.0 / 15 / LN2, 2.0 / 17 / LN2, 2.0 / 19 / LN2, 2.0 / 21 / LN2, 2.0 / 23 / LN2,
};
static const double SIN_TERMS[] = {
    1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0, -1.0 / 1307674368000.0,
    1.0 / 355687428096000.0,
};
static const double COS_TERMS[] = {
    1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600, -1.0 / 87178291200.0,
    1.0 / 20922789888000.0,
};

static inline double horner(const double *terms, int count, double x)
{
    double result = terms[count - 1];
    for (int i = count - 2; i >= 0; i--)
        result = result * x + terms[i];
    return result;
}

static inline double eu_exp2(double x)
{
    if (x != x)
        return x;
    double bounded = x < -2000.0 ? -2000.0 : x > 2000.0 ? 2000.0 : x;
    double whole = rint(bounded);
    return ldexp(horner(EXP_TERMS, COUNT(EXP_TERMS), (bounded - whole) * LN2), (int)whole);
}

static inline double eu_log2(double x)
{
    if (x != x || x < 0)
        return NAN;
    if (x == 0)
        return -INFINITY;
    if (x == INFINITY)
        return x;
    int exponent;
    double mantissa = frexp(x, &exponent);
    if (mantissa < 0.7071067811865476) {
        mantissa *= 2.0;
        exponent--;
    }
    double s = (mantissa - 1.0) / (mantissa + 1.0);
    return exponent + s * horner(LOG_TERMS, COUNT(LOG_TERMS), s * s);
}

/* Quarters of a turn away from `quarter`. */
static inline double sine(double x, int quarter)
{
    if (x - x != 0)
        return NAN;
    double angle = fabs(x) > 0x1p20 ? fmod(x, 2.0 * PI) : x;
    double quadrant = rint(angle * (2.0 / PI));
    double rest = ((angle - quadrant * 1.5707963109016418) - quadrant * 1.5893254712295857e-08) - quadrant * 6.123233995736766e-17;
    double square = rest * rest;
    int64_t which = ((int64_t)quadrant + quarter) & 3;
    double value = which & 1 ? horner(COS_TERMS, COUNT(COS_TERMS), square) : rest * horner(SIN_TERMS, COUNT(SIN_TERMS), square);
    return which & 2 ? -value : value;
}

static inline double eu_sin(double x)
{
    return x == 0 ? x : sine(x, 0);
}

static inline double eu_cos(double x)
{
    return sine(x, 1);
}

static inline double eu_pow(double x, double y)
{
    return y == 0 ? 1.0 : eu_exp2(y * eu_log2(fabs(x)));
}

#endif
