"""A model in another process: buffers, shared memory, pickle protocol 5."""
