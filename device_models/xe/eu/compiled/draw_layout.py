"""The structures of `runtime/image.h`, `sampler.h` and `draw.h` as ctypes has them; `library.py` compares the sizes."""

from __future__ import annotations

import ctypes

from vfio_user_xe.device_models.xe.eu.compiled.layout import LANES
from vfio_user_xe.device_models.xe.eu.compiled.pixel_messages import RENDER_WRITE, SAMPLE

LEVELS = 15
TARGETS = 8
_TEXEL = 32
_QUADS = 8
_DETOURS = 4
_FIELDS = 4
SAMPLES = 16
_int64, _uint64, _uint32, _uint8, _double, _pointer = (
    ctypes.c_int64,
    ctypes.c_uint64,
    ctypes.c_uint32,
    ctypes.c_uint8,
    ctypes.c_double,
    ctypes.c_void_p,
)


class FieldStruct(ctypes.Structure):
    _fields_ = [("channel", _uint8), ("first", _uint8), ("width", _uint8), ("reserved", _uint8)]


class ImageStruct(ctypes.Structure):
    _fields_ = [
        ("base", _uint64),
        ("width", _int64),
        ("height", _int64),
        ("depth", _int64),
        ("step", _int64),
        ("place_x", _int64),
        ("place_y", _int64),
        ("place_z", _int64),
        ("q_pitch", _int64),
        ("first_element", _int64),
        ("pitch", _int64),
        ("across", _int64),
        ("columns", _pointer),
        ("rows", _pointer),
        ("planes", _pointer),
        ("table", _pointer),
        ("tile_width", _uint8),
        ("tile_height", _uint8),
        ("tile_bytes", _uint8),
        ("flat", _uint8),
        ("bytes", _uint8),
        ("kind", _uint8),
        ("fields", _uint8),
        ("integer", _uint8),
        ("null", _uint8),
        ("even8", _uint8),
        ("swizzle", _uint8 * 4),
        ("tile_depth", _uint8),
        ("samples", _uint8),
        ("field", FieldStruct * _FIELDS),
        ("sample_across", _int64),
        ("sample_down", _int64),
        ("sample_planes", _uint8),
        ("sample_width", _uint8),
        ("sample_height", _uint8),
        ("block", _uint8),
        ("reserved", _uint8 * 4),
        ("steps", _pointer),
    ]


class TextureStruct(ctypes.Structure):
    _fields_ = [
        ("key", _uint64),
        ("type", ctypes.c_int32),
        ("levels", ctypes.c_int32),
        ("array", ctypes.c_int32),
        ("depth", ctypes.c_int32),
        ("level", ImageStruct * LEVELS),
    ]


class SamplerStruct(ctypes.Structure):
    _fields_ = [
        ("key", _uint64),
        ("bias", _double),
        ("least", _double),
        ("most", _double),
        ("border", _double * 4),
        ("border_bits", _double * 4),
        ("seamless", ctypes.c_int32),
        ("linear", _uint8),
        ("linear_min", _uint8),
        ("mip", _uint8),
        ("shadow", _uint8),
        ("modes", _uint8 * 3),
        ("texels", _uint8),
        ("anisotropy", ctypes.c_int32),
        ("rounds", _uint8 * 3),
        ("rounds_min", _uint8 * 3),
    ]


class SamplingStruct(ctypes.Structure):
    _fields_ = [
        ("textures", _pointer),
        ("samplers", _pointer),
        ("texture_count", _uint32),
        ("sampler_count", _uint32),
        ("stage", _uint64),
        ("dynamic", _uint64),
        ("bindless", _uint64),
    ]


class OutputStruct(ctypes.Structure):
    _fields_ = [
        ("alive", _uint32),
        ("written", _uint32 * TARGETS),
        ("has_second", _uint32),
        ("has_mask", _uint32),
        ("has_depth", _uint32),
        ("colours", _uint32 * (TARGETS * 4 * LANES)),
        ("second", _uint32 * (TARGETS * 4 * LANES)),
        ("mask", ctypes.c_uint16 * LANES),
        ("depth", ctypes.c_float * LANES),
    ]


class DepthTestStruct(ctypes.Structure):
    _fields_ = [
        ("image", ImageStruct),
        ("on", _uint8),
        ("test", _uint8),
        ("write", _uint8),
        ("function", _uint8),
        ("form", _uint8),
        ("bounded", _uint8),
        ("reserved", _uint8 * 2),
        ("low", _double),
        ("high", _double),
    ]


class FaceStruct(ctypes.Structure):
    _fields_ = [
        ("function", _uint8),
        ("fail", _uint8),
        ("depth_fail", _uint8),
        ("both_pass", _uint8),
        ("test_mask", _uint8),
        ("write_mask", _uint8),
        ("reference", _uint8),
        ("reserved", _uint8),
    ]


class StencilTestStruct(ctypes.Structure):
    _fields_ = [
        ("image", ImageStruct),
        ("on", _uint8),
        ("write", _uint8),
        ("reserved", _uint8 * 6),
        ("back", FaceStruct),
        ("front", FaceStruct),
    ]


class EquationStruct(ctypes.Structure):
    _fields_ = [("function", _uint8), ("source", _uint8), ("destination", _uint8), ("reserved", _uint8)]


class TargetStruct(ctypes.Structure):
    _fields_ = [
        ("image", ImageStruct),
        ("layers", _int64),
        ("constant", _double * 4),
        ("colour", EquationStruct),
        ("alpha", EquationStruct),
        ("present", _uint8),
        ("copies", _uint8),
        ("blends", _uint8),
        ("pre_clamp", _uint8),
        ("post_clamp", _uint8),
        ("logic", _uint8),
        ("write_all", _uint8),
        ("alpha_to_one", _uint8),
        ("write", _uint8 * _TEXEL),
    ]


class DetourStruct(ctypes.Structure):
    _fields_ = [("address", _uint64), ("bytes", _uint32), ("access", _uint32), ("data", _uint8 * _TEXEL)]


class _LoadStruct(ctypes.Structure):
    _fields_ = [("count", _pointer), ("bytes", _uint32), ("first", _uint32)]


class DrawStruct(ctypes.Structure):
    _fields_ = [
        ("primitives", _int64),
        ("edges", _pointer),
        ("perspective", _pointer),
        ("screen", _pointer),
        ("depth", _pointer),
        ("planes", _pointer),
        ("extent", _pointer),
        ("offset", _pointer),
        ("range", _pointer),
        ("smooth", _pointer),
        ("stipple", _pointer),
        ("inclusive", _pointer),
        ("rectangle", _pointer),
        ("front", _pointer),
        ("bounds", _pointer),
        ("layer", _pointer),
        ("viewport", _pointer),
        ("data", _pointer),
        ("plane_count", _int64),
        ("data_registers", _int64),
        ("width", _int64),
        ("polygons", _int64),
        ("first_register", _int64),
        ("constant_registers", _int64),
        ("constants", _pointer),
        ("header", _pointer),
        ("arfs", _pointer),
        ("arf_bytes", _int64),
        ("arf_at", _int64),
        ("dispatch_at", _int64),
        ("entry", _int64),
        ("kernel", _pointer),
        ("modes", _uint32),
        ("source_depth", _uint8),
        ("source_w", _uint8),
        ("input_coverage", _uint8),
        ("whole_quads", _uint8),
        ("early", _uint8),
        ("alpha_to_coverage", _uint8),
        ("alpha_test", _uint8),
        ("alpha_function", _uint8),
        ("alpha_reference", _double),
        ("samples", _int64),
        ("sample_x", _double * SAMPLES),
        ("sample_y", _double * SAMPLES),
        ("sample_mask", _uint32),
        ("per_sample", _uint8),
        ("position_offsets", _uint8),
        ("sample_offsets", _uint8),
        ("reserved", _uint8),
        ("band", _int64),
        ("bands", _int64),
        ("depth_test", DepthTestStruct),
        ("stencil_test", StencilTestStruct),
        ("targets", TargetStruct * TARGETS),
        ("threads", _pointer),
        ("fixed", _pointer),
        ("output", _pointer),
        ("stage", _int64),
        ("primitive", _int64),
        ("x", _int64),
        ("y", _int64),
        ("quads", _int64),
        ("groups", _int64),
        ("tested", _int64),
        ("tested_late", _int64),
        ("target", _int64),
        ("lane", _int64),
        ("sample", _int64),
        ("placed", _int64),
        ("tests_passed", _uint64),
        ("unplaced", _uint64),
        ("quad_primitive", _int64 * _QUADS),
        ("quad_coverage", _uint64 * _QUADS),
        ("quad_x", ctypes.c_int32 * _QUADS),
        ("quad_y", ctypes.c_int32 * _QUADS),
        ("quad_there", _uint8 * _QUADS),
        ("quad_sample", _uint8 * _QUADS),
        ("group_primitive", _int64 * _QUADS),
        ("passed", _int64),
        ("shaded", _int64),
        ("miss", _uint64),
        ("miss_bytes", _uint32),
        ("miss_kind", _uint32),
        ("detours", _uint32),
        ("loads", _uint32),
        ("detour", DetourStruct * _DETOURS),
        ("load", _LoadStruct * 4),
    ]


SIZES = (
    ctypes.sizeof(ImageStruct),
    ctypes.sizeof(TextureStruct),
    ctypes.sizeof(SamplerStruct),
    ctypes.sizeof(SamplingStruct),
    SAMPLE.size,
    ctypes.sizeof(OutputStruct),
    RENDER_WRITE.size,
    ctypes.sizeof(DepthTestStruct),
    ctypes.sizeof(StencilTestStruct),
    ctypes.sizeof(TargetStruct),
    ctypes.sizeof(DrawStruct),
)
