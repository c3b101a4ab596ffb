// SPDX-License-Identifier: MIT
/* Every file that the driver shows in sysfs and debugfs can be read, and the kernel does not complain meanwhile. */
#define _GNU_SOURCE
#include "xe.h"

#include <fcntl.h>
#include <ftw.h>

static unsigned files_read, files_refused;

/* Files whose reading does something, whose content is the device's memory, or that are very long. */
static bool is_left_out(const char *name)
{
	static const char *const left_out[] = { "force_reset", "resource", "rom", "config", "vpd", "save", "restore",
						"migration_", "guc_log" };

	for (unsigned i = 0; i < COUNT(left_out); i++)
		if (!strncmp(name, left_out[i], strlen(left_out[i])))
			return true;
	return false;
}

static int visit(const char *path, const struct stat *info, int type, struct FTW *where)
{
	static char buffer[65536];

	(void)type;
	if (!S_ISREG(info->st_mode) || !(info->st_mode & 0444) || is_left_out(path + where->base))
		return 0;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, buffer, sizeof(buffer));
	if (got < 0) {
		files_refused++;
		note("%s: %s", path, strerror(errno));
	} else {
		files_read++;
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
	}
	close(fd);
	return 0;
}

static void read_tree(const char *path)
{
	if (access(path, F_OK))
		skip("%s is not there", path);
	nftw(path, visit, 20, FTW_PHYS);
	note("%u files read, %u refused", files_read, files_refused);
	expect_ne(files_read, 0);
}

CHECK(files_in_sysfs_can_be_read)
{
	xe_open();
	read_tree(sysfs_path("."));
}

CHECK(files_in_debugfs_can_be_read)
{
	xe_open();
	read_tree(debugfs_path("."));
}

CHECK(registers_hold_what_the_driver_programmed)
{
	const char *path = debugfs_path("gt0/register-save-restore-check");

	xe_open();
	if (access(path, F_OK))
		skip("%s is not there", path);
	char *complaints = read_file(path);
	expect(complaints);
	if (*complaints)
		FAIL("%s", complaints);
}
