"""For tests: a served card with a guest, the pytest plug-in, a client that needs no socket."""
