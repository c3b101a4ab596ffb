#include "vk.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X(type, name, parameters) type (*vk##name) parameters;
VK_FUNCTIONS(X)
#undef X

VkDevice device;
VkCommandBuffer commands;
VkHandle layout;
static VkPhysicalDevice physical;
static VkQueue queue;
static VkHandle image, view;
static uint32_t side, layers;

void check(VkResult result, const char *what)
{
	if (result == 0)
		return;
	fprintf(stderr, "%s: VkResult %d\n", what, result);
	exit(1);
}

static void look_up(VkInstance instance, void *(*find)(VkInstance, const char *))
{
#define X(type, name, parameters) \
	*(void **)&vk##name = find(instance, "vk" #name); \
	if (!vk##name) \
		check(-3, "vk" #name);
	VK_FUNCTIONS(X)
#undef X
}

static void choose(VkInstance instance, const char *wanted)
{
	VkPhysicalDevice all[8];
	uint32_t count = 8;
	check(vkEnumeratePhysicalDevices(instance, &count, all), "vkEnumeratePhysicalDevices");
	for (uint32_t n = 0; n < count; n++) {
		VkPhysicalDeviceProperties found;
		vkGetPhysicalDeviceProperties(all[n], &found);
		if (!wanted || strstr(found.name, wanted)) {
			fprintf(stderr, "device %s\n", found.name);
			physical = all[n];
			return;
		}
	}
	fprintf(stderr, "none of %u devices has %s in its name\n", count, wanted);
	exit(1);
}

void open_device(const char *wanted)
{
	void *library = dlopen("libvulkan.so.1", RTLD_NOW);
	void *(*find)(VkInstance, const char *) = library ? (void *(*)(VkInstance, const char *))dlsym(library, "vkGetInstanceProcAddr") : NULL;
	if (!find) {
		fprintf(stderr, "libvulkan.so.1: %s\n", dlerror());
		exit(1);
	}
	VkResult (*create)(const VkInstanceCreateInfo *, const void *, VkInstance *) = find(NULL, "vkCreateInstance");
	const VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
	VkInstance instance;
	check(create(&(VkInstanceCreateInfo){.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .app = &app}, NULL, &instance), "vkCreateInstance");
	look_up(instance, find);
	choose(instance, wanted);
	VkPhysicalDeviceMeshShaderFeaturesEXT mesh = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MESH_SHADER_FEATURES_EXT, .task = 1, .mesh = 1, .queries = 1};
	VkPhysicalDeviceDynamicRenderingFeatures rendering = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DYNAMIC_RENDERING_FEATURES, .pNext = &mesh, .dynamicRendering = 1};
	VkPhysicalDeviceVulkan12Features counts = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &rendering, .drawIndirectCount = 1};
	VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &counts};
	vkGetPhysicalDeviceFeatures(physical, features.all);
	const float priority = 1;
	const VkDeviceQueueCreateInfo queues = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .count = 1, .priorities = &priority};
	const char *const extension = "VK_EXT_mesh_shader";
	check(vkCreateDevice(physical, &(VkDeviceCreateInfo){
		.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = &features, .queueCount = 1, .queues = &queues,
		.extensionCount = 1, .extensions = &extension}, NULL, &device), "vkCreateDevice");
	vkGetDeviceQueue(device, 0, 0, &queue);
	VkHandle pool;
	check(vkCreateCommandPool(device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .flags = 2}, NULL, &pool), "pool");
	check(vkAllocateCommandBuffers(device, &(VkCommandBufferAllocateInfo){
		.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .pool = pool, .count = 1}, &commands), "commands");
	const VkPushConstantRange range = {VK_SHADER_STAGE_MESH_BIT_EXT, 0, 128};
	check(vkCreatePipelineLayout(device, &(VkPipelineLayoutCreateInfo){
		.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .rangeCount = 1, .ranges = &range}, NULL, &layout), "layout");
}

static VkHandle allocate(const VkMemoryRequirements *needs, VkFlags wanted)
{
	VkPhysicalDeviceMemoryProperties found;
	vkGetPhysicalDeviceMemoryProperties(physical, &found);
	for (uint32_t n = 0; n < found.typeCount; n++)
		if (needs->types >> n & 1 && (found.types[n].flags & wanted) == wanted) {
			VkHandle memory;
			check(vkAllocateMemory(device, &(VkMemoryAllocateInfo){
				.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .size = needs->size, .type = n}, NULL, &memory), "vkAllocateMemory");
			return memory;
		}
	fprintf(stderr, "no memory has properties %#x\n", wanted);
	exit(1);
}

VkHandle make_buffer(VkDeviceSize size, VkFlags usage, void **data)
{
	VkHandle buffer;
	VkMemoryRequirements needs;
	check(vkCreateBuffer(device, &(VkBufferCreateInfo){
		.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = size, .usage = usage}, NULL, &buffer), "vkCreateBuffer");
	vkGetBufferMemoryRequirements(device, buffer, &needs);
	const VkHandle memory = allocate(&needs, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
	check(vkBindBufferMemory(device, buffer, memory, 0), "vkBindBufferMemory");
	check(vkMapMemory(device, memory, 0, size, 0, data), "vkMapMemory");
	return buffer;
}

VkHandle make_shader(const uint32_t *code, size_t size)
{
	VkHandle module;
	check(vkCreateShaderModule(device, &(VkShaderModuleCreateInfo){
		.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .size = size, .code = code}, NULL, &module), "vkCreateShaderModule");
	return module;
}

static void turn(VkFlags from_stage, VkFlags to_stage, VkFlags from, VkFlags to, uint32_t old, uint32_t new)
{
	const VkImageMemoryBarrier barrier = {
		.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER, .from = from, .to = to, .oldLayout = old, .newLayout = new,
		.oldFamily = ~0u, .newFamily = ~0u, .image = image, .range = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, layers}};
	vkCmdPipelineBarrier(commands, from_stage, to_stage, 0, 0, NULL, 0, NULL, 1, &barrier);
}

void begin_picture(uint32_t pixels, uint32_t count)
{
	VkMemoryRequirements needs;
	side = pixels;
	layers = count;
	check(vkCreateImage(device, &(VkImageCreateInfo){
		.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, .type = VK_IMAGE_TYPE_2D, .format = VK_FORMAT_R8G8B8A8_UNORM,
		.extent = {side, side, 1}, .levels = 1, .layers = layers, .samples = 1,
		.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT}, NULL, &image), "vkCreateImage");
	vkGetImageMemoryRequirements(device, image, &needs);
	check(vkBindImageMemory(device, image, allocate(&needs, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT), 0), "vkBindImageMemory");
	check(vkCreateImageView(device, &(VkImageViewCreateInfo){
		.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO, .image = image, .type = VK_IMAGE_VIEW_TYPE_2D_ARRAY,
		.format = VK_FORMAT_R8G8B8A8_UNORM, .range = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, layers}}, NULL, &view), "vkCreateImageView");
	check(vkBeginCommandBuffer(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO}), "begin");
	turn(VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, 0, VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT,
	     0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
}

void begin_rendering(void)
{
	const VkRenderingAttachmentInfo colour = {
		.sType = VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO, .view = view, .layout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
		.load = VK_ATTACHMENT_LOAD_OP_CLEAR, .store = VK_ATTACHMENT_STORE_OP_STORE, .clear = {0.25f, 0.5f, 0.75f, 1}};
	vkCmdBeginRendering(commands, &(VkRenderingInfo){
		.sType = VK_STRUCTURE_TYPE_RENDERING_INFO, .area = {0, 0, side, side}, .layers = layers, .colourCount = 1, .colours = &colour});
}

uint8_t *end_picture(void)
{
	const VkDeviceSize size = 4ull * side * side * layers;
	void *data;
	const VkHandle buffer = make_buffer(size, VK_BUFFER_USAGE_TRANSFER_DST_BIT, &data);
	vkCmdEndRendering(commands);
	turn(VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT,
	     VK_ACCESS_TRANSFER_READ_BIT, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
	const VkBufferImageCopy copy = {.aspect = VK_IMAGE_ASPECT_COLOR_BIT, .layers = layers, .extent = {side, side, 1}};
	vkCmdCopyImageToBuffer(commands, image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, buffer, 1, &copy);
	const VkMemoryBarrier seen = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .from = VK_ACCESS_TRANSFER_WRITE_BIT, .to = VK_ACCESS_HOST_READ_BIT};
	vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &seen, 0, NULL, 0, NULL);
	check(vkEndCommandBuffer(commands), "vkEndCommandBuffer");
	check(vkQueueSubmit(queue, 1, &(VkSubmitInfo){
		.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .count = 1, .buffers = &commands}, 0), "vkQueueSubmit");
	check(vkQueueWaitIdle(queue), "vkQueueWaitIdle");
	uint8_t *pixels = malloc(size);
	if (!pixels)
		check(-1, "malloc");
	return memcpy(pixels, data, size);
}
