/* SPDX-License-Identifier: MIT */
/* What the table of commands names: each gets its words, and returns 0 or a negative errno value. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "client.h"

/* commands_vf.c */
long do_vfio(char **w);
long do_dma_map(char **w);
long do_dma_unmap(char **w);
long do_fill(char **w);
long do_check(char **w);
long do_peek(char **w);
long do_clean(char **w);
long do_text(char **w);
long do_reset(char **w);
long do_flr(char **w);
long do_config(char **w);
long do_read_config(char **w);
long do_feature(char **w);
long do_export(char **w);
long do_set_feature(char **w);
long do_release(char **w);

/* commands_gpu.c */
long do_gpu(char **w);
long do_buffer(char **w);
long do_import(char **w);
long do_reexport(char **w);
long do_bind(char **w);
long do_unbind(char **w);
long do_gem_close(char **w);
long do_copy(char **w);
long do_kernel(char **w);
long do_engines(char **w);
long do_prefer(char **w);
long do_device(char **w);
long do_pages(char **w);
long do_raw_open(char **w);
long do_raw_take(char **w);
long do_raw_close(char **w);
long do_raw_poke(char **w);
long do_raw_ioctl(char **w);

/* commands_memory.c */
long do_memory(char **w);
long do_where(char **w);
long do_verify(char **w);
long do_paint(char **w);
long do_holds(char **w);
long do_print(char **w);
long do_mmap(char **w);
long do_view(char **w);
long do_touch(char **w);

/* commands_dmabuf.c */
long do_poll(char **w);
long do_path(char **w);
long do_take(char **w);
long do_iommufd(char **w);
long do_ioas_map(char **w);
long do_ioas_unmap(char **w);

/* commands_stream.c */
long do_listen(char **w);
long do_accept(char **w);
long do_receive(char **w);
long do_port(char **w);
long do_tell(char **w);
long do_hear(char **w);

/* failures.c */
long do_fail_each(char **w);

/* background.c */
long do_loop(char **w);
long do_cycle(char **w);
long do_again(char **w);
long do_busy(char **w);
long do_spawn(char **w);
long do_join(char **w);
long do_stop(char **w);

/* tally.c: how often calls of one kind ended how. */
struct tally {
	struct { long result; unsigned count; } seen[8];
};

void tally_count(struct tally *tally, long result);
/* Reports "OFOK=3", "OFEINVAL=1": one for each result. */
void tally_say(const struct tally *tally, const char *of);

#endif
