// SPDX-License-Identifier: MIT
/* The client's commands. Each returns 0 or a negative errno value. */
#define _GNU_SOURCE
#include "commands.h"
#include "objects.h"

/* Close the descriptor of a VF, dma-buf or GPU; what was mapped of it is unmapped before. Or unmap a view. */
static long do_close(char **w)
{
	struct object *o = object_named(w[0]);

	if (!o)
		return -ENXIO;
	object_unmap(o);
	return object_close_fd(&o->fd);
}

static long do_sleep(char **w)
{
	usleep(to_number(w[0]) * 1000);
	return 0;
}

static long do_exit(char **w)
{
	exit(to_number(w[0]));
}

static long do_kexec(char **w)
{
	return start_kernel(w[0], w[1], w[2]);
}

static const struct command {
	const char *name;
	long (*run)(char **words);
	unsigned least, most;
	const char *usage;
} commands[] = {
	{ "vfio", do_vfio, 2, 3, "NAME ADDRESS [VF|IOMMUFD]" },
	{ "dma-map", do_dma_map, 4, 4, "VF IOVA OFFSET LENGTH" },
	{ "dma-unmap", do_dma_unmap, 3, 3, "VF IOVA LENGTH" },
	{ "fill", do_fill, 4, 4, "VF OFFSET LENGTH SEED" },
	{ "check", do_check, 4, 4, "VF OFFSET LENGTH SEED" },
	{ "peek", do_peek, 2, 2, "VF OFFSET" },
	{ "clean", do_clean, 3, 3, "VF OFFSET LENGTH" },
	{ "text", do_text, 3, 3, "VF OFFSET WORD" },
	{ "reset", do_reset, 1, 1, "VF" },
	{ "flr", do_flr, 1, 1, "VF" },
	{ "config", do_config, 4, 4, "VF OFFSET SIZE VALUE" },
	{ "read-config", do_read_config, 3, 3, "VF OFFSET SIZE" },
	{ "feature", do_feature, 2, 2, "VF FLAGS" },
	{ "set-feature", do_set_feature, 4, 5, "VF NUMBER BYTES OBJECT|- [VALUE]" },
	{ "export", do_export, 4, 5, "VF REGION OFFSET+LENGTH,...|- NAME [FLAGS]" },
	{ "gpu", do_gpu, 2, 3, "NAME ADDRESS [lr|svm]" },
	{ "device", do_device, 2, 2, "NAME PATH" },
	{ "buffer", do_buffer, 4, 5, "GPU NAME VA SIZE [vram]" },
	{ "import", do_import, 3, 3, "GPU DMABUF NAME" },
	{ "reexport", do_reexport, 2, 2, "BUFFER NAME" },
	{ "bind", do_bind, 2, 5, "BUFFER VA [OFFSET LENGTH [PAT]]" },
	{ "unbind", do_unbind, 3, 3, "GPU VA LENGTH" },
	{ "gem-close", do_gem_close, 1, 1, "BUFFER" },
	{ "copy", do_copy, 4, 5, "GPU TO FROM LENGTH [TIMES]" },
	{ "kernel", do_kernel, 6, 6, "GPU NAME GROUPS TO FROM WORD" },
	{ "loop", do_loop, 5, 7, "copy GPU TO FROM LENGTH | kernel GPU NAME GROUPS TO FROM WORD" },
	{ "engines", do_engines, 2, 2, "GPU ROUNDS" },
	{ "busy", do_busy, 1, 1, "GPU" },
	{ "memory", do_memory, 2, 2, "NAME SIZE" },
	{ "where", do_where, 1, 1, "BUFFER" },
	{ "prefer", do_prefer, 3, 3, "GPU MEMORY vram|system|OTHER-GPU" },
	{ "kexec", do_kexec, 3, 3, "KERNEL INITRD FILE-WITH-COMMAND-LINE" },
	{ "cycle", do_cycle, 3, 3, "GPU DMABUF VA" },
	{ "again", do_again, 1, WORDS, "COMMAND..." },
	{ "fail-each", do_fail_each, 4, 4, "import|bind GPU DMABUF VA" },
	{ "verify", do_verify, 5, 5, "BUFFER AT OFFSET LENGTH SEED" },
	{ "paint", do_paint, 5, 5, "BUFFER AT OFFSET LENGTH SEED" },
	{ "holds", do_holds, 4, 4, "BUFFER AT LENGTH WORD" },
	{ "print", do_print, 2, 2, "BUFFER AT" },
	{ "poll", do_poll, 2, 2, "DMABUF MS" },
	{ "mmap", do_mmap, 1, 1, "DMABUF" },
	{ "view", do_view, 2, 2, "DMABUF NAME" },
	{ "touch", do_touch, 2, 2, "VIEW AT" },
	{ "close", do_close, 1, 1, "NAME" },
	{ "release", do_release, 1, 1, "VF" },
	{ "path", do_path, 2, 2, "DMABUF NAME" },
	{ "take", do_take, 4, 4, "PID FD NAME SIZE" },
	{ "iommufd", do_iommufd, 1, 1, "NAME" },
	{ "ioas-map", do_ioas_map, 4, 4, "IOMMUFD DMABUF IOVA LENGTH" },
	{ "ioas-unmap", do_ioas_unmap, 3, 3, "IOMMUFD IOVA LENGTH" },
	{ "listen", do_listen, 2, 2, "NAME PATH" },
	{ "accept", do_accept, 3, 3, "LISTENER NAME MS" },
	{ "receive", do_receive, 3, 3, "STREAM MS DMABUF" },
	{ "port", do_port, 1, 1, "NAME" },
	{ "tell", do_tell, 2, WORDS, "STREAM WORDS..." },
	{ "hear", do_hear, 2, 2, "PORT MS" },
	{ "pages", do_pages, 2, 2, "BUFFER ADDRESS" },
	{ "raw-open", do_raw_open, 2, 2, "SLOT ADDRESS" },
	{ "raw-take", do_raw_take, 2, 2, "SLOT DMABUF" },
	{ "raw-close", do_raw_close, 1, 1, "SLOT" },
	{ "raw-poke", do_raw_poke, 2, 2, "OFFSET DATA" },
	{ "raw-ioctl", do_raw_ioctl, 3, 5, "SLOT REQUEST DATA [SLOT BYTE|result]" },
	{ "spawn", do_spawn, 2, WORDS, "JOB COMMAND..." },
	{ "join", do_join, 2, 2, "JOB MS" },
	{ "stop", do_stop, 1, 1, "JOB" },
	{ "sleep", do_sleep, 1, 1, "MS" },
	{ "exit", do_exit, 1, 1, "CODE" },
};

unsigned split(char *line, char **words)
{
	unsigned count = 0;

	for (char *word = strtok_r(line, " ", &line); word; word = strtok_r(NULL, " ", &line)) {
		if (count == WORDS)
			return TOO_MANY;
		words[count++] = word;
	}
	for (unsigned i = count; i < WORDS + 1; i++)
		words[i] = NULL;
	return count;
}

long run_words(char **words, unsigned count)
{
	if (count == TOO_MANY)
		return -E2BIG;
	for (size_t i = 0; count && i < sizeof(commands) / sizeof(*commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, words[0]))
			continue;
		if (count - 1 < c->least || count - 1 > c->most) {
			say("usage=%s_%s", c->name, c->usage);
			return -E2BIG;
		}
		take_no_number();
		long result = c->run(words + 1);

		/* Also when it did something: with a 0 that nobody wrote it was something else. */
		const char *no_number = take_no_number();

		if (!no_number)
			return result;
		say("no_number=%s", no_number);
		return -EINVAL;
	}
	say("what=no_such_command");
	return -ENOSYS;
}

void print_usage(FILE *file)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		fprintf(file, "  %s %s\n", commands[i].name, commands[i].usage);
}
