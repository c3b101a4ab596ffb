"""The engines: command streamers with their contexts, blitters, and the scheduler. All of it runs on the executor."""
