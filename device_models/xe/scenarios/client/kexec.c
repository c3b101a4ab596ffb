// SPDX-License-Identifier: MIT
/* Another kernel started without a reset of the machine. */
#include "client.h"

#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/syscall.h>

/* Returns only when it fails. */
long start_kernel(const char *kernel, const char *initrd, const char *line_file)
{
	char line[4096];
	int image = open(kernel, O_RDONLY | O_CLOEXEC), archive = open(initrd, O_RDONLY | O_CLOEXEC);
	int words = open(line_file, O_RDONLY | O_CLOEXEC);
	ssize_t length = words < 0 ? -1 : read(words, line, sizeof(line) - 1);

	if (image < 0 || archive < 0 || length < 0)
		return -errno;
	while (length && line[length - 1] == '\n')
		length--;
	line[length] = 0;
	if (syscall(SYS_kexec_file_load, image, archive, length + 1, line, 0ul) < 0)
		return -errno;
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	return -errno;
}
