// SPDX-License-Identifier: MIT
/* What check.c gives to checks, for programs that are none: a process that fails ends with the reason. */
#include "xe_alone.h"

#include <dirent.h>
#include <stdarg.h>
#include <time.h>

#include "xe/check.h"

char device_pci[16], device_node[64];

void fail(const char *file, int line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("%s FAILED: ", device_pci);
	vprintf(format, arguments);
	printf(" (%s:%d)\n", file, line);
	fflush(stdout);
	_exit(1);
}

void skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("%s FAILED: ", device_pci);
	vprintf(format, arguments);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

void note(const char *format, ...)
{
	(void)format;
}

uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void sleep_ms(unsigned milliseconds)
{
	usleep(milliseconds * 1000);
}

void choose_function(const char *pci)
{
	char path[64];
	DIR *folder;

	snprintf(device_pci, sizeof(device_pci), "%s", pci);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/drm", pci);
	folder = opendir(path);
	for (struct dirent *entry; folder && (entry = readdir(folder));)
		if (!strncmp(entry->d_name, "renderD", 7))
			snprintf(device_node, sizeof(device_node), "/dev/dri/%.32s", entry->d_name);
	if (folder)
		closedir(folder);
	if (!device_node[0])
		FAIL("no render node");
}
