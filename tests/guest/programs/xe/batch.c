// SPDX-License-Identifier: MIT
/* Batches, workspaces and spinners; see batch.h. */
#include "batch.h"

struct batch batch_in(struct bo *bo, uint64_t offset)
{
	return (struct batch){
		.cpu = (uint32_t *)((char *)bo_map(bo) + offset),
		.va = bo->va + offset,
		.capacity = (bo->size - offset) / 4,
	};
}

void emit(struct batch *b, uint32_t dword)
{
	if (b->used == b->capacity)
		FAIL("the batch is longer than its %u dwords", b->capacity);
	b->cpu[b->used++] = dword;
}

static struct space open_space(int fd, engine e, uint32_t placement, uint32_t vm, uint64_t offset)
{
	struct space space = { .fd = fd, .engine = e, .vm = vm };

	space.code = bo_create(fd, vm, SPACE_SIZE, placement);
	space.data = bo_create(fd, vm, SPACE_SIZE, placement);
	bind(fd, vm, &space.code, CODE_VA + offset);
	bind(fd, vm, &space.data, DATA_VA + offset);
	space.batch = batch_in(&space.code, 0);
	bo_map(&space.data);
	space.queue = queue_create(fd, vm, e);
	return space;
}

struct space space_on(int fd, engine e, uint32_t placement, uint32_t vm_flags)
{
	return open_space(fd, e, placement, vm_create(fd, vm_flags), 0);
}

static uint32_t usual_memory(int fd)
{
	struct drm_xe_query_config *config = query(fd, DRM_XE_DEVICE_QUERY_CONFIG, NULL);
	bool has_vram = config->info[DRM_XE_QUERY_CONFIG_FLAGS] & DRM_XE_QUERY_CONFIG_FLAG_HAS_VRAM;

	free(config);
	return has_vram ? vram(fd) : system_memory(fd);
}

struct space space_open(int fd, engine e)
{
	return space_on(fd, e, usual_memory(fd), 0);
}

struct space space_beside(const struct space *space, engine e, unsigned index)
{
	/* DATA_VA lies 16 sizes above CODE_VA: beyond, go on far from both. */
	uint64_t offset = index < 16 ? index * SPACE_SIZE : GIB(1) + index * 32 * SPACE_SIZE;

	return open_space(space->fd, e, usual_memory(space->fd), space->vm, offset);
}

uint32_t space_submit(struct space *space)
{
	uint64_t start = space->batch.va;

	mi_batch_buffer_end(&space->batch);
	while (space->batch.used % 16)
		mi_noop(&space->batch);
	uint32_t done = exec(space->fd, space->queue, start);
	space->batch.cpu += space->batch.used;
	space->batch.va += 4ull * space->batch.used;
	space->batch.capacity -= space->batch.used;
	space->batch.used = 0;
	return done;
}

void space_run(struct space *space)
{
	uint32_t done = space_submit(space);

	syncobj_wait(space->fd, done);
	syncobj_destroy(space->fd, done);
	space->batch = batch_in(&space->code, 0);
}

uint64_t spinner_emit(struct spinner *spinner, bool preemptible)
{
	struct batch *b = &spinner->space.batch;
	uint64_t start = here(b);

	spinner->rounds = data(&spinner->space, 0);
	spinner->go_on = data(&spinner->space, 2);
	*spinner->rounds = 0;
	*spinner->go_on = 1;
	mi_load_gpr(b, 0, 0);
	mi_load_gpr(b, 1, 1);
	uint64_t loop = here(b);
	if (preemptible)
		mi_arb_check(b);
	mi_math(b, ALU_ADD, 0, 0, 1, ALU_ACCU);
	mi_store_register(b, GPR(0), data_va(&spinner->space, 0));
	mi_conditional_end(b, data_va(&spinner->space, 2), GREATER, 0);
	mi_jump(b, loop);
	return start;
}

struct spinner spinner_start_in(struct space space, bool preemptible)
{
	struct spinner spinner = { .space = space };

	spinner.done = exec(space.fd, space.queue, spinner_emit(&spinner, preemptible));
	return spinner;
}

struct spinner spinner_start(int fd, engine e)
{
	struct spinner spinner = spinner_start_in(space_open(fd, e), true);

	spinner_wait_progress(&spinner);
	return spinner;
}

void spinner_wait_progress(struct spinner *spinner)
{
	uint32_t before = *spinner->rounds;

	wait_until(*spinner->rounds != before, PATIENCE);
}

void spinner_end(struct spinner *spinner)
{
	*spinner->go_on = 0;
	syncobj_wait(spinner->space.fd, spinner->done);
}
