"""The reference back end: numpy over the register files of many threads at once, a step an instruction."""
