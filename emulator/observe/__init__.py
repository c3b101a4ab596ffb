"""What a served card does, for people: traces, maps, `top`, stalled registers, unmodelled registers."""
