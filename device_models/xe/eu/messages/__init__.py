"""What sends mean: descriptors of each shared function, decoded into typed messages. Pure; no memory is reached here."""
