"""Plain models and state machines: no I/O, and no clock of its own (every function takes ``now``)."""
