#version 460
#extension GL_EXT_mesh_shader : require
layout(location = 0) in vec4 shade;
layout(location = 1) perprimitiveEXT in vec4 tint;
layout(location = 2) perprimitiveEXT in flat uvec4 number;
layout(location = 3) perprimitiveEXT in vec2 lift;
layout(location = 0) out vec4 result;
void main() { result = vec4(shade.rgb * tint.rgb + lift.xyx * (number.y == 7u ? 1.0 : 0.0), 1); }
