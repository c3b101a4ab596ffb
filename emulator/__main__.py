"""The program `vfio-user-xe`, which `python -m vfio_user_xe.emulator` is, too."""

from __future__ import annotations


def main() -> None:
    """Load the command line, and run it. Ctrl-C ends it without a traceback while it is loaded, too."""
    try:
        # Here and not above: this takes most of a second on a busy host.
        from vfio_user_xe.emulator.cli import main as program

        program.main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
