"""Size, FLOPs, latency, memory and energy from one inventory of operations; no torch, no speech."""
