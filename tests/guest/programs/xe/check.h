/* SPDX-License-Identifier: MIT */
/*
 * Checks that report TAP (https://testanything.org).
 *
 *	CHECK(the_answer_is_42)
 *	{
 *		expect_eq(answer(), 42);
 *	}
 *
 * A program is a few of these and no main().  Each check runs in a process of its own: whatever it holds is released
 * by the kernel when it ends, however it ends, and a crash or a hang costs that check only.  What the kernel logs
 * meanwhile is judged too: a splat fails every check, an error line of the driver fails every check that does not say
 * `.expects_errors`.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct check {
	const char *name;
	void (*run)(void);
	int line;
	unsigned timeout; /* seconds; 0 is the default of 30 */
	bool expects_errors; /* hangs, faults or resets the device on purpose: the driver may log errors */
};

/* Define a check; further arguments are initialisers of struct check. */
#define CHECK(name_, ...)                                                                                              \
	static void name_(void);                                                                                       \
	static const struct check check_##name_ = { .name = #name_, .run = name_, .line = __LINE__, ##__VA_ARGS__ };   \
	static const struct check *const entry_##name_ __attribute__((used, section("checks"))) = &check_##name_;      \
	static void name_(void)

/* The PCI address of the device under test, such as 0000:03:00.0, and its render node. */
extern char device_pci[16];
extern char device_node[64];

/* End the check: failed, or skipped with a reason that its reader can judge.  Any thread may call them. */
void fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Add a line to what is reported below the check. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now(void);
void sleep_ms(unsigned milliseconds);

#define FAIL(...) fail(__FILE__, __LINE__, __VA_ARGS__)

#define expect(condition)                                                                                              \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			FAIL("not true: %s", #condition);                                                              \
	} while (0)

#define expect_compared(left, operator, right)                                                                         \
	do {                                                                                                           \
		uint64_t left_ = (uint64_t)(left), right_ = (uint64_t)(right);                                         \
		if (!(left_ operator right_))                                                                          \
			FAIL("%s is %#llx, expected " #operator " %s, %#llx", #left, (unsigned long long)left_,        \
			     #right, (unsigned long long)right_);                                                      \
	} while (0)

#define expect_eq(left, right) expect_compared(left, ==, right)
#define expect_ne(left, right) expect_compared(left, !=, right)
#define expect_lt(left, right) expect_compared(left, <, right)
#define expect_le(left, right) expect_compared(left, <=, right)
#define expect_ge(left, right) expect_compared(left, >=, right)

/* A call that returns a negative errno value when it fails must succeed; its value. */
#define must(call)                                                                                                     \
	({                                                                                                             \
		long result_ = (call);                                                                                 \
		if (result_ < 0)                                                                                       \
			FAIL("%s: %s", #call, strerror((int)-result_));                                                \
		result_;                                                                                               \
	})

/* Such a call must fail with this error. */
#define expect_error(call, error)                                                                                      \
	do {                                                                                                           \
		long result_ = (call);                                                                                 \
		if (result_ != -(error))                                                                               \
			FAIL("%s: %s, expected %s", #call, result_ < 0 ? strerror((int)-result_) : "success", #error); \
	} while (0)

/* Poll until the condition holds, for at most so many milliseconds. */
#define wait_until(condition, milliseconds)                                                                            \
	do {                                                                                                           \
		uint64_t end_ = now() + (milliseconds) * 1000000ull;                                                   \
		while (!(condition)) {                                                                                 \
			if (now() > end_)                                                                              \
				FAIL("not true within %u ms: %s", (unsigned)(milliseconds), #condition);               \
			usleep(500);                                                                                   \
		}                                                                                                      \
	} while (0)

#endif
