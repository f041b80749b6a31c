"""Makes the measured latency table of a device."""
