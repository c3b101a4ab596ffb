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

static __thread const char *no_number;

uint64_t to_number(const char *word)
{
	char *end;
	uint64_t found = strtoull(word, &end, 0);

	if (end == word || *end)
		no_number = word;
	return found;
}

const char *take_no_number(void)
{
	const char *word = no_number;

	no_number = NULL;
	return word;
}

bool join_words(char *line, size_t size, char **words)
{
	size_t length = 0;

	for (line[0] = 0; *words && length < size; words++)
		length += snprintf(line + length, size - length, "%s%s", length ? " " : "", *words);
	return length < size;
}
