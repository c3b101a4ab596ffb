// SPDX-License-Identifier: MIT
/* The byte stream to the virtual machine: a virtio serial port. */
#define _GNU_SOURCE
#include "vmm.h"

char *lines_next(struct lines *lines, int fd)
{
	static char line[LINE];

	for (;;) {
		char *end = memchr(lines->text, '\n', lines->length);

		if (end) {
			size_t length = end - lines->text;
			bool overlong = lines->overlong;

			memcpy(line, lines->text, length);
			line[length] = 0;
			lines->length -= length + 1;
			memmove(lines->text, end + 1, lines->length);
			lines->overlong = false;
			if (overlong)
				continue;
			return line;
		}
		if (lines->length == sizeof(lines->text)) {
			lines->overlong = true;
			lines->length = 0;
		}
		ssize_t got = read(fd, lines->text + lines->length, sizeof(lines->text) - lines->length);

		if (got <= 0)
			return NULL;
		lines->length += got;
	}
}

void port_send(struct vmm *vmm, const char *line)
{
	char text[1026]; /* the longest line, its newline and the end */
	int length = snprintf(text, sizeof(text), "%s\n", line);

	/* A machine that does not read loses what does not fit: half a line would spoil the next, and the driver takes all or nothing. */
	if (write(vmm->port, text, length) != length)
		log_line(vmm, "lost %s", line);
}
