"""Observation: OA units, which write reports of performance counters into a buffer of the driver's (`xe_oa.c`)."""
