// SPDX-License-Identifier: MIT
/* Words `name=value` of the messages about surfaces (docs/virtual-machine-frames.md). */
#include "client.h"

const char *word_of(const char *line, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = line; (at = strstr(at, name)); at += length)
		if (at > line && at[-1] == ' ' && at[length] == '=')
			return at + length + 1;
	return NULL;
}

bool number_of(const char *line, const char *name, uint64_t *value)
{
	const char *word = word_of(line, name);
	char *end;

	if (!word || *word < '0' || *word > '9')
		return false;
	errno = 0;
	*value = strtoull(word, &end, 0);
	return !errno && (!*end || *end == ' ');
}
