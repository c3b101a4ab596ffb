"""Device models that come with the emulator: `edu` (the tutorial), `conformance`, and `xe`."""
