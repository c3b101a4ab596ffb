"""The binary formats that the GuC shares with drivers and that are off the access path, each described once with construct."""
