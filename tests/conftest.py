"""What all tests rely on."""

import signal

from hypothesis import HealthCheck, settings

# No test asserts how long something takes, nor how long examples take to be made.
settings.register_profile("without a deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without a deadline")

# A shell starts background jobs with SIGINT ignored, and Python leaves it so: tests of Ctrl-C, and the programs that
# they start, would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
