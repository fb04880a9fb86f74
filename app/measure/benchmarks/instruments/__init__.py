"""What measures: time on a device, memory of a process, files out of the cache, and the bytes that bound a step."""
