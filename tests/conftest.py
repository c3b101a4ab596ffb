"""What all tests rely on."""

import signal

# A shell starts background jobs with SIGINT ignored, and Python leaves it so: tests of Ctrl-C, and the programs that
# they start, would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
