// SPDX-License-Identifier: MIT
/* What every part reports and calls with. */
#define _GNU_SOURCE
#include "client.h"

#include <stdarg.h>
#include <sys/ioctl.h>
#include <time.h>

__thread char notes[NOTES];

void say(const char *format, ...)
{
	size_t used = strlen(notes);
	va_list arguments;

	if (used && used < NOTES - 1)
		notes[used++] = ' ';
	va_start(arguments, format);
	vsnprintf(notes + used, NOTES - used, format, arguments);
	va_end(arguments);
}

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

long call(int fd, unsigned long request, void *argument)
{
	long result;

	do
		result = ioctl(fd, request, argument);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

long ioctl_value(int fd, unsigned long request, unsigned long value)
{
	return ioctl(fd, request, value) < 0 ? -errno : 0;
}
