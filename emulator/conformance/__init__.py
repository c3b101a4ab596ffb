"""A black-box conformance suite for vfio-user servers, written from the specification; see `docs/conformance.md`."""
