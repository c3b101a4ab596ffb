"""How much of everything there is on a GT, for all functions together."""

from __future__ import annotations

GGTT_TOP = 0xFEE00000
"""First GGTT address that no function may use (regs/xe_guc_regs.h:GUC_GGTT_TOP)."""
ALL_CONTEXTS = 65535
"""xe_guc_fwif.h:GUC_ID_MAX."""
ALL_DOORBELLS = 256
"""xe_guc_fwif.h:GUC_NUM_DOORBELLS."""
