"""Interconnects that come with the emulator, one module each; `docs/interconnects.md` describes them."""
