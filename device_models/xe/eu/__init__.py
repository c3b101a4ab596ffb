"""Intel Xe2 execution units: instructions, their intermediate form, messages, and the reference back end.

    program = decode(read, entry)                       # bytes to the intermediate form (`ir.py`)
    text = disassemble_program(program)                 # and `assembler.assemble(text)` back to bytes
    threads = Threads.create(entry, dispatch_masks)     # state: plain arrays
    Interpreter(read, threads, port).run(instructions)  # the numpy back end (`reference/`)

What instructions compute is in `semantics.py`. Nothing here reaches memory: what a `send` asks for goes out by a
`MessagePort` (`port.py`), which the executor side serves; `messages/` says what it means.
"""
