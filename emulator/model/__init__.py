"""What a device model is written with: cards, card files, options, registers, memory, the executor, faults, plug-in loading."""
