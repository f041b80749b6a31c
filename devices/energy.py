"""Energy from latency and power."""


def energy_mj(*, latency_ms: float, power_w: float) -> float:
    """Energy in millijoules: E = t P, and one watt for one millisecond is one millijoule.

    With a device's active power this is all that the board draws during the work, its idle share included.
    """
    return latency_ms * power_w
