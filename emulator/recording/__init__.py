"""Record and replay (`docs/recording.md`): a bug that was seen once in a guest becomes a test.

`recorded_card` makes a card whose dealings with its clients go to a file; `replay` does again what the file says, without
any client, and reports the first difference; `redact` removes bytes of others from it.
"""
