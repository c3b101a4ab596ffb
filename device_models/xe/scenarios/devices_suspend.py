"""Suspending a guest without its processors: shell commands (`kernel/power/main.c:pm_test_store`)."""

POSSIBLE = "grep -q devices /sys/power/pm_test && grep -q mem /sys/power/state"
"""Whether this kernel can test suspending."""
DEVICES = (
    "echo 1 > /sys/module/suspend/parameters/pm_test_delay 2>/dev/null; echo devices > /sys/power/pm_test;"
    " echo mem > /sys/power/state; code=$?; echo none > /sys/power/pm_test; exit $code"
)
"""All devices are suspended and resumed; the processors stay on."""
