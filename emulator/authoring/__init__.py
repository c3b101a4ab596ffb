"""The authoring kit: packages to start from, and the reference of the public API."""
