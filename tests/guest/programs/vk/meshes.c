/* Pictures of task and mesh shaders for a comparison of two drivers: meshes FOLDER NAME...
 *
 * Each is saved as FOLDER/NAME.pam, and what queries have counted goes to the standard output.  VK_DEVICE has a part of the
 * device's name.  shaders.h is made of shaders/ by `python -m tests.support.guest.spirv`. */
#include "vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shaders.h"

enum { SIDE = 128 };
#define SHADER(name) make_shader(name, sizeof name)

struct tiles { float colour[4], more[4][4], origin[2]; };

static VkHandle make_pipeline(VkHandle task, VkHandle mesh, VkHandle fragment, uint32_t viewports)
{
	VkPipelineShaderStageCreateInfo stages[3];
	const VkHandle modules[] = {mesh, fragment, task};
	const VkFlags kinds[] = {VK_SHADER_STAGE_MESH_BIT_EXT, VK_SHADER_STAGE_FRAGMENT_BIT, VK_SHADER_STAGE_TASK_BIT_EXT};
	for (int n = 0; n < 3; n++)
		stages[n] = (VkPipelineShaderStageCreateInfo){
			.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = kinds[n], .module = modules[n], .name = "main"};
	const VkViewport places[] = {{0, 0, viewports > 1 ? SIDE / 2 : SIDE, SIDE, 0, 1}, {SIDE / 2, SIDE / 4, SIDE / 2, SIDE / 2, 0, 1}};
	const VkRect2D scissors[] = {{0, 0, SIDE, SIDE}, {0, 0, SIDE, SIDE}};
	const VkPipelineViewportStateCreateInfo viewport = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO, .viewportCount = viewports, .viewports = places,
		.scissorCount = viewports, .scissors = scissors};
	const VkPipelineRasterizationStateCreateInfo rasterization = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO, .lineWidth = 1};
	const VkPipelineMultisampleStateCreateInfo multisample = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO, .samples = 1};
	const VkPipelineColorBlendAttachmentState written = {.write = 0xF};
	const VkPipelineColorBlendStateCreateInfo blend = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO, .count = 1, .attachments = &written};
	const uint32_t format = VK_FORMAT_R8G8B8A8_UNORM;
	const VkPipelineRenderingCreateInfo rendering = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_RENDERING_CREATE_INFO, .colourCount = 1, .colours = &format};
	VkHandle pipeline;
	check(vkCreateGraphicsPipelines(device, 0, 1, &(VkGraphicsPipelineCreateInfo){
		.sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO, .pNext = &rendering, .stageCount = task ? 3 : 2, .stages = stages,
		.viewport = &viewport, .rasterization = &rasterization, .multisample = &multisample, .blend = &blend, .layout = layout},
		NULL, &pipeline), "vkCreateGraphicsPipelines");
	return pipeline;
}

static void bind(VkHandle pipeline) { vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline); }

static void one_group(VkHandle mesh)
{
	begin_rendering();
	bind(make_pipeline(0, mesh, SHADER(plain_frag), 1));
	vkCmdDrawMeshTasksEXT(commands, 1, 1, 1);
}

static void triangle(void) { one_group(SHADER(triangle_mesh)); }
static void points(void) { one_group(SHADER(points_mesh)); }
static void lines(void) { one_group(SHADER(lines_mesh)); }

/* Tasks that launch groups, with what queries count of them. */
static VkHandle statistics, primitives;

static void discs(void)
{
	check(vkCreateQueryPool(device, &(VkQueryPoolCreateInfo){
		.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .type = VK_QUERY_TYPE_PIPELINE_STATISTICS, .count = 1,
		.statistics = VK_QUERY_PIPELINE_STATISTIC_TASK_SHADER_INVOCATIONS_BIT_EXT
			| VK_QUERY_PIPELINE_STATISTIC_MESH_SHADER_INVOCATIONS_BIT_EXT}, NULL, &statistics), "vkCreateQueryPool");
	check(vkCreateQueryPool(device, &(VkQueryPoolCreateInfo){
		.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .type = VK_QUERY_TYPE_MESH_PRIMITIVES_GENERATED_EXT, .count = 1},
		NULL, &primitives), "vkCreateQueryPool");
	vkCmdResetQueryPool(commands, statistics, 0, 1);
	vkCmdResetQueryPool(commands, primitives, 0, 1);
	begin_rendering();
	bind(make_pipeline(SHADER(discs_task), SHADER(discs_mesh), SHADER(primitive_frag), 1));
	vkCmdBeginQuery(commands, statistics, 0, 0);
	vkCmdBeginQuery(commands, primitives, 0, 0);
	vkCmdDrawMeshTasksEXT(commands, 2, 2, 1);
	vkCmdEndQuery(commands, primitives, 0);
	vkCmdEndQuery(commands, statistics, 0);
}

/* The same with one triangle of each disc left out. */
static void culled(void)
{
	begin_rendering();
	bind(make_pipeline(SHADER(discs_task), SHADER(culled_mesh), SHADER(primitive_frag), 1));
	vkCmdDrawMeshTasksEXT(commands, 2, 2, 1);
}

static void counted(void)
{
	uint64_t found[3];
	const VkFlags flags = VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT;
	check(vkGetQueryPoolResults(device, statistics, 0, 1, 16, found, 16, flags), "vkGetQueryPoolResults");
	check(vkGetQueryPoolResults(device, primitives, 0, 1, 8, found + 2, 8, flags), "vkGetQueryPoolResults");
	printf("task invocations %llu\nmesh invocations %llu\nprimitives %llu\n", (unsigned long long)found[0],
	       (unsigned long long)found[1], (unsigned long long)found[2]);
}

static void views(void)
{
	begin_rendering();
	bind(make_pipeline(0, SHADER(views_mesh), SHADER(plain_frag), 2));
	vkCmdDrawMeshTasksEXT(commands, 1, 1, 1);
}

static void push(float red, float x, float y)
{
	const struct tiles tiles = {
		.colour = {red, 1, 0.5f, 1}, .more = {{0, 0, 0, 0}, {0, 0, 0.25f, 0}, {0.125f, 0, 0, 0}, {0, 0.125f, 0, 0}}, .origin = {x, y}};
	vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_MESH_BIT_EXT, 0, sizeof tiles, &tiles);
}

static void fill(uint32_t *words, uint32_t step, const uint32_t (*groups)[3], int count)
{
	for (int n = 0; n < count; n++)
		memcpy(words + n * step, groups[n], sizeof *groups);
}

/* Numbers of groups from memory, some of them apart from each other, and a number of draws. */
static void indirect(void)
{
	static const uint32_t near[][3] = {{3, 1, 1}, {0, 1, 1}, {2, 2, 1}}, apart[][3] = {{2, 1, 1}, {1, 1, 1}, {3, 1, 1}};
	uint32_t *words;
	const VkHandle buffer = make_buffer(4096, VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT, (void **)&words);
	fill(words, 3, near, 3);
	fill(words + 64, 5, apart, 3);
	words[128] = 2;
	begin_rendering();
	const VkHandle plain = make_pipeline(0, SHADER(tiles_mesh), SHADER(plain_frag), 1);
	bind(plain);
	push(1, -0.95f, -0.95f);
	vkCmdDrawMeshTasksIndirectEXT(commands, buffer, 0, 3, 12);
	bind(make_pipeline(0, SHADER(numbered_mesh), SHADER(plain_frag), 1));
	push(0.5f, 0.1f, -0.9f);
	vkCmdDrawMeshTasksIndirectEXT(commands, buffer, 256, 3, 20);
	push(0, -0.95f, 0.05f);
	vkCmdDrawMeshTasksIndirectCountEXT(commands, buffer, 256, buffer, 512, 3, 20);
	bind(plain);
	push(0.25f, -0.2f, 0.3f);
	vkCmdDrawMeshTasksIndirectCountEXT(commands, buffer, 24, buffer, 512, 1, 12);
}

static const struct scene { const char *name; void (*draw)(void); uint32_t layers; void (*after)(void); } scenes[] = {
	{"triangle", triangle, 1, NULL}, {"points", points, 1, NULL}, {"lines", lines, 1, NULL}, {"discs", discs, 1, counted},
	{"culled", culled, 1, NULL}, {"views", views, 2, NULL}, {"indirect", indirect, 1, NULL},
};

static void save(const char *folder, const char *name, const uint8_t *pixels, uint32_t layers)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s.pam", folder, name);
	FILE *file = fopen(path, "wb");
	const size_t size = 4ul * SIDE * SIDE * layers;
	if (!file || fprintf(file, "P7\nWIDTH %d\nHEIGHT %u\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n", SIDE, SIDE * layers) < 0
	    || fwrite(pixels, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(1);
	}
}

static void draw(const struct scene *scene, const char *folder)
{
	begin_picture(SIDE, scene->layers);
	scene->draw();
	uint8_t *pixels = end_picture();
	save(folder, scene->name, pixels, scene->layers);
	free(pixels);
	if (scene->after)
		scene->after();
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: %s FOLDER NAME...\n", argv[0]);
		return 2;
	}
	open_device(getenv("VK_DEVICE"));
	for (int i = 2; i < argc; i++)
		for (unsigned n = 0; n < sizeof scenes / sizeof *scenes; n++)
			if (!strcmp(argv[i], scenes[n].name) || !strcmp(argv[i], "all"))
				draw(&scenes[n], argv[1]);
	return 0;
}
