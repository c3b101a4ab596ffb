"""A black-box conformance suite for vfio-user servers, written from the specification; `suite.py` runs it."""
