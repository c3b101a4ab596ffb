/* Vulkan without a window, by symbols that are looked up when the program runs: no headers or libraries are needed to compile
 * it.  Names and values are those of the Khronos registry; only what is used here. */
#ifndef VK_H
#define VK_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t VkFlags, VkBool32;
typedef uint64_t VkDeviceSize, VkHandle; /* of what cannot be dispatched to */
typedef struct VkInstance_T *VkInstance;
typedef struct VkPhysicalDevice_T *VkPhysicalDevice;
typedef struct VkDevice_T *VkDevice;
typedef struct VkQueue_T *VkQueue;
typedef struct VkCommandBuffer_T *VkCommandBuffer;
typedef int32_t VkResult;

enum {
	VK_API_VERSION_1_3 = 1 << 22 | 3 << 12, VK_WHOLE_SIZE_INT = -1,
	VK_STRUCTURE_TYPE_APPLICATION_INFO = 0, VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO = 1,
	VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO = 2, VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO = 3,
	VK_STRUCTURE_TYPE_SUBMIT_INFO = 4, VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO = 5,
	VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO = 11, VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO = 12,
	VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO = 14, VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO = 15,
	VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO = 16, VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO = 18,
	VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO = 22, VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO = 23,
	VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO = 24, VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO = 26,
	VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO = 28, VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO = 30,
	VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO = 39, VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO = 40,
	VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO = 42, VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER = 45,
	VK_STRUCTURE_TYPE_MEMORY_BARRIER = 46, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES = 51,
	VK_STRUCTURE_TYPE_RENDERING_INFO = 1000044000, VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO = 1000044001,
	VK_STRUCTURE_TYPE_PIPELINE_RENDERING_CREATE_INFO = 1000044002,
	VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DYNAMIC_RENDERING_FEATURES = 1000044003,
	VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 = 1000059000,
	VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MESH_SHADER_FEATURES_EXT = 1000328000,
	VK_FORMAT_R8G8B8A8_UNORM = 37, VK_IMAGE_TYPE_2D = 1, VK_IMAGE_VIEW_TYPE_2D_ARRAY = 5, VK_IMAGE_ASPECT_COLOR_BIT = 1,
	VK_IMAGE_USAGE_TRANSFER_SRC_BIT = 1, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT = 0x10,
	VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL = 2, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL = 6,
	VK_BUFFER_USAGE_TRANSFER_DST_BIT = 2, VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT = 0x100,
	VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT = 1, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT = 2, VK_MEMORY_PROPERTY_HOST_COHERENT_BIT = 4,
	VK_SHADER_STAGE_FRAGMENT_BIT = 0x10, VK_SHADER_STAGE_TASK_BIT_EXT = 0x40, VK_SHADER_STAGE_MESH_BIT_EXT = 0x80,
	VK_ATTACHMENT_LOAD_OP_CLEAR = 1, VK_ATTACHMENT_STORE_OP_STORE = 0, VK_PIPELINE_BIND_POINT_GRAPHICS = 0,
	VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT = 0x400, VK_PIPELINE_STAGE_TRANSFER_BIT = 0x1000,
	VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT = 1, VK_PIPELINE_STAGE_HOST_BIT = 0x4000,
	VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT = 0x100, VK_ACCESS_TRANSFER_READ_BIT = 0x800, VK_ACCESS_TRANSFER_WRITE_BIT = 0x1000,
	VK_ACCESS_HOST_READ_BIT = 0x2000, VK_QUERY_TYPE_PIPELINE_STATISTICS = 1,
	VK_QUERY_TYPE_MESH_PRIMITIVES_GENERATED_EXT = 1000328000, VK_QUERY_RESULT_64_BIT = 1, VK_QUERY_RESULT_WAIT_BIT = 2,
	VK_QUERY_PIPELINE_STATISTIC_FRAGMENT_SHADER_INVOCATIONS_BIT = 0x80,
	VK_QUERY_PIPELINE_STATISTIC_TASK_SHADER_INVOCATIONS_BIT_EXT = 0x800,
	VK_QUERY_PIPELINE_STATISTIC_MESH_SHADER_INVOCATIONS_BIT_EXT = 0x1000,
};

#define HEAD uint32_t sType; const void *pNext
typedef struct { HEAD; const char *name; uint32_t version; const char *engine; uint32_t engineVersion, apiVersion; } VkApplicationInfo;
typedef struct {
	HEAD; VkFlags flags; const VkApplicationInfo *app; uint32_t layerCount; const char *const *layers;
	uint32_t extensionCount; const char *const *extensions;
} VkInstanceCreateInfo;
typedef struct { HEAD; VkFlags flags; uint32_t family, count; const float *priorities; } VkDeviceQueueCreateInfo;
typedef struct {
	HEAD; VkFlags flags; uint32_t queueCount; const VkDeviceQueueCreateInfo *queues; uint32_t layerCount; const char *const *layers;
	uint32_t extensionCount; const char *const *extensions; const void *features;
} VkDeviceCreateInfo;
typedef struct { HEAD; VkBool32 all[55]; } VkPhysicalDeviceFeatures2;
typedef struct { HEAD; VkBool32 samplerMirrorClampToEdge, drawIndirectCount, others[45]; } VkPhysicalDeviceVulkan12Features;
typedef struct { HEAD; VkBool32 dynamicRendering; } VkPhysicalDeviceDynamicRenderingFeatures;
typedef struct { HEAD; VkBool32 task, mesh, multiview, shadingRate, queries; } VkPhysicalDeviceMeshShaderFeaturesEXT;
typedef struct {
	uint32_t apiVersion, driverVersion, vendor, device, type; char name[256]; uint8_t rest[2048]; /* limits and more */
} VkPhysicalDeviceProperties;
typedef struct { VkFlags flags; uint32_t heap; } VkMemoryType;
typedef struct {
	uint32_t typeCount; VkMemoryType types[32]; uint32_t heapCount; struct { VkDeviceSize size; VkFlags flags; } heaps[16];
} VkPhysicalDeviceMemoryProperties;
typedef struct { VkDeviceSize size, alignment; uint32_t types; } VkMemoryRequirements;
typedef struct { HEAD; VkDeviceSize size; uint32_t type; } VkMemoryAllocateInfo;
typedef struct {
	HEAD; VkFlags flags; VkDeviceSize size; VkFlags usage; uint32_t sharing, familyCount; const uint32_t *families;
} VkBufferCreateInfo;
typedef struct { uint32_t width, height, depth; } VkExtent3D;
typedef struct {
	HEAD; VkFlags flags; uint32_t type, format; VkExtent3D extent; uint32_t levels, layers, samples, tiling; VkFlags usage;
	uint32_t sharing, familyCount; const uint32_t *families; uint32_t layout;
} VkImageCreateInfo;
typedef struct { VkFlags aspect; uint32_t level, levels, layer, layers; } VkImageSubresourceRange;
typedef struct {
	HEAD; VkFlags flags; VkHandle image; uint32_t type, format, swizzle[4]; VkImageSubresourceRange range;
} VkImageViewCreateInfo;
typedef struct { HEAD; VkFlags flags; size_t size; const uint32_t *code; } VkShaderModuleCreateInfo;
typedef struct { HEAD; VkFlags flags; uint32_t stage; VkHandle module; const char *name; const void *special; } VkPipelineShaderStageCreateInfo;
typedef struct { float x, y, width, height, near, far; } VkViewport;
typedef struct { int32_t x, y; uint32_t width, height; } VkRect2D;
typedef struct {
	HEAD; VkFlags flags; uint32_t viewportCount; const VkViewport *viewports; uint32_t scissorCount; const VkRect2D *scissors;
} VkPipelineViewportStateCreateInfo;
typedef struct {
	HEAD; VkFlags flags; VkBool32 depthClamp, discard; uint32_t fill; VkFlags cull; uint32_t frontFace; VkBool32 bias;
	float biasConstant, biasClamp, biasSlope, lineWidth;
} VkPipelineRasterizationStateCreateInfo;
typedef struct {
	HEAD; VkFlags flags; uint32_t samples; VkBool32 sampleShading; float least; const uint32_t *mask; VkBool32 alphaToCoverage, alphaToOne;
} VkPipelineMultisampleStateCreateInfo;
typedef struct { VkBool32 blend; uint32_t equation[6]; VkFlags write; } VkPipelineColorBlendAttachmentState;
typedef struct {
	HEAD; VkFlags flags; VkBool32 logic; uint32_t op, count; const VkPipelineColorBlendAttachmentState *attachments; float constants[4];
} VkPipelineColorBlendStateCreateInfo;
typedef struct { VkFlags stages; uint32_t offset, size; } VkPushConstantRange;
typedef struct {
	HEAD; VkFlags flags; uint32_t setCount; const VkHandle *sets; uint32_t rangeCount; const VkPushConstantRange *ranges;
} VkPipelineLayoutCreateInfo;
typedef struct { HEAD; uint32_t views, colourCount; const uint32_t *colours; uint32_t depth, stencil; } VkPipelineRenderingCreateInfo;
typedef struct {
	HEAD; VkFlags flags; uint32_t stageCount; const VkPipelineShaderStageCreateInfo *stages; const void *vertexInput, *inputAssembly, *tessellation;
	const VkPipelineViewportStateCreateInfo *viewport; const VkPipelineRasterizationStateCreateInfo *rasterization;
	const VkPipelineMultisampleStateCreateInfo *multisample; const void *depthStencil; const VkPipelineColorBlendStateCreateInfo *blend;
	const void *dynamic; VkHandle layout, renderPass; uint32_t subpass; VkHandle base; int32_t baseIndex;
} VkGraphicsPipelineCreateInfo;
typedef struct { HEAD; VkFlags flags; uint32_t family; } VkCommandPoolCreateInfo;
typedef struct { HEAD; VkHandle pool; uint32_t level, count; } VkCommandBufferAllocateInfo;
typedef struct { HEAD; VkFlags flags; const void *inheritance; } VkCommandBufferBeginInfo;
typedef struct { HEAD; VkFlags from, to; } VkMemoryBarrier;
typedef struct {
	HEAD; VkFlags from, to; uint32_t oldLayout, newLayout, oldFamily, newFamily; VkHandle image; VkImageSubresourceRange range;
} VkImageMemoryBarrier;
typedef struct {
	HEAD; VkHandle view; uint32_t layout, resolve; VkHandle resolveView; uint32_t resolveLayout, load, store; float clear[4];
} VkRenderingAttachmentInfo;
typedef struct {
	HEAD; VkFlags flags; VkRect2D area; uint32_t layers, views, colourCount; const VkRenderingAttachmentInfo *colours;
	const VkRenderingAttachmentInfo *depth, *stencil;
} VkRenderingInfo;
typedef struct {
	VkDeviceSize offset; uint32_t rowLength, height; VkFlags aspect; uint32_t level, layer, layers; int32_t x, y, z; VkExtent3D extent;
} VkBufferImageCopy;
typedef struct {
	HEAD; uint32_t waitCount; const VkHandle *waits; const VkFlags *stages; uint32_t count; const VkCommandBuffer *buffers;
	uint32_t signalCount; const VkHandle *signals;
} VkSubmitInfo;
typedef struct { HEAD; VkFlags flags; uint32_t type, count; VkFlags statistics; } VkQueryPoolCreateInfo;

#define CREATES(X, name, what) X(VkResult, Create##name, (VkDevice, const what *, const void *, VkHandle *))
#define VK_FUNCTIONS(X) \
	X(VkResult, EnumeratePhysicalDevices, (VkInstance, uint32_t *, VkPhysicalDevice *)) \
	X(void, GetPhysicalDeviceProperties, (VkPhysicalDevice, VkPhysicalDeviceProperties *)) \
	X(void, GetPhysicalDeviceFeatures, (VkPhysicalDevice, VkBool32 *)) \
	X(void, GetPhysicalDeviceMemoryProperties, (VkPhysicalDevice, VkPhysicalDeviceMemoryProperties *)) \
	X(VkResult, CreateDevice, (VkPhysicalDevice, const VkDeviceCreateInfo *, const void *, VkDevice *)) \
	X(void, GetDeviceQueue, (VkDevice, uint32_t, uint32_t, VkQueue *)) \
	X(VkResult, AllocateMemory, (VkDevice, const VkMemoryAllocateInfo *, const void *, VkHandle *)) \
	X(VkResult, MapMemory, (VkDevice, VkHandle, VkDeviceSize, VkDeviceSize, VkFlags, void **)) \
	X(void, GetBufferMemoryRequirements, (VkDevice, VkHandle, VkMemoryRequirements *)) \
	X(void, GetImageMemoryRequirements, (VkDevice, VkHandle, VkMemoryRequirements *)) \
	X(VkResult, BindBufferMemory, (VkDevice, VkHandle, VkHandle, VkDeviceSize)) \
	X(VkResult, BindImageMemory, (VkDevice, VkHandle, VkHandle, VkDeviceSize)) \
	CREATES(X, Buffer, VkBufferCreateInfo) \
	CREATES(X, Image, VkImageCreateInfo) \
	CREATES(X, ImageView, VkImageViewCreateInfo) \
	CREATES(X, ShaderModule, VkShaderModuleCreateInfo) \
	CREATES(X, PipelineLayout, VkPipelineLayoutCreateInfo) \
	CREATES(X, CommandPool, VkCommandPoolCreateInfo) \
	CREATES(X, QueryPool, VkQueryPoolCreateInfo) \
	X(VkResult, CreateGraphicsPipelines, (VkDevice, VkHandle, uint32_t, const VkGraphicsPipelineCreateInfo *, const void *, VkHandle *)) \
	X(VkResult, AllocateCommandBuffers, (VkDevice, const VkCommandBufferAllocateInfo *, VkCommandBuffer *)) \
	X(VkResult, BeginCommandBuffer, (VkCommandBuffer, const VkCommandBufferBeginInfo *)) \
	X(VkResult, EndCommandBuffer, (VkCommandBuffer)) \
	X(VkResult, QueueSubmit, (VkQueue, uint32_t, const VkSubmitInfo *, VkHandle)) \
	X(VkResult, QueueWaitIdle, (VkQueue)) \
	X(VkResult, GetQueryPoolResults, (VkDevice, VkHandle, uint32_t, uint32_t, size_t, void *, VkDeviceSize, VkFlags)) \
	X(void, CmdResetQueryPool, (VkCommandBuffer, VkHandle, uint32_t, uint32_t)) \
	X(void, CmdBeginQuery, (VkCommandBuffer, VkHandle, uint32_t, VkFlags)) \
	X(void, CmdEndQuery, (VkCommandBuffer, VkHandle, uint32_t)) \
	X(void, CmdPipelineBarrier, (VkCommandBuffer, VkFlags, VkFlags, VkFlags, uint32_t, const VkMemoryBarrier *, uint32_t, \
				     const void *, uint32_t, const VkImageMemoryBarrier *)) \
	X(void, CmdBeginRendering, (VkCommandBuffer, const VkRenderingInfo *)) \
	X(void, CmdEndRendering, (VkCommandBuffer)) \
	X(void, CmdBindPipeline, (VkCommandBuffer, uint32_t, VkHandle)) \
	X(void, CmdPushConstants, (VkCommandBuffer, VkHandle, VkFlags, uint32_t, uint32_t, const void *)) \
	X(void, CmdCopyImageToBuffer, (VkCommandBuffer, VkHandle, uint32_t, VkHandle, uint32_t, const VkBufferImageCopy *)) \
	X(void, CmdDrawMeshTasksEXT, (VkCommandBuffer, uint32_t, uint32_t, uint32_t)) \
	X(void, CmdDrawMeshTasksIndirectEXT, (VkCommandBuffer, VkHandle, VkDeviceSize, uint32_t, uint32_t)) \
	X(void, CmdDrawMeshTasksIndirectCountEXT, (VkCommandBuffer, VkHandle, VkDeviceSize, VkHandle, VkDeviceSize, uint32_t, uint32_t))

#define X(type, name, parameters) extern type (*vk##name) parameters;
VK_FUNCTIONS(X)
#undef X

/* What a program needs of a device, and a picture that it draws. */
extern VkDevice device;
extern VkCommandBuffer commands;
extern VkHandle layout; /* of pipelines: 128 bytes of push constants for mesh shaders */

void check(VkResult result, const char *what);
/* The first device whose name has `wanted` in it; NULL: the first one. */
void open_device(const char *wanted);
/* A buffer that the host sees at `*data`. */
VkHandle make_buffer(VkDeviceSize size, VkFlags usage, void **data);
VkHandle make_shader(const uint32_t *code, size_t size);
/* `commands` are recorded for a picture of `side` by `side` pixels and some layers, then draw to it, then are executed; the
 * pixels, layer by layer, are the caller's to free. */
void begin_picture(uint32_t side, uint32_t layers);
void begin_rendering(void);
uint8_t *end_picture(void);

#endif
