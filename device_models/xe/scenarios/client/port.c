// SPDX-License-Identifier: MIT
/* Virtio serial ports (virtio_console.c), by the name that the machine gave them. */
#define _GNU_SOURCE
#include "client.h"

#include <dirent.h>
#include <fcntl.h>

int port_open(const char *name)
{
	DIR *folder = opendir("/sys/class/virtio-ports");
	char path[300], found[64];
	int fd = -ENOENT;

	if (!folder)
		return -errno;
	for (struct dirent *entry; fd == -ENOENT && (entry = readdir(folder));) {
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		FILE *file = fopen(path, "r");

		if (!file)
			continue;
		if (fgets(found, sizeof(found), file)) {
			found[strcspn(found, "\n")] = 0;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			if (!strcmp(found, name)) {
				fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
				fd = fd < 0 ? -errno : fd;
			}
		}
		fclose(file);
	}
	closedir(folder);
	return fd;
}
