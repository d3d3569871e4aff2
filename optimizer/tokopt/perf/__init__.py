"""Physics of one deployment: seconds, bytes and FLOPs from a machine and a language model; no I/O, no prices."""
