"""Energy and CPU occupancy from latency and power."""


def energy_mj(*, latency_ms: float, power_w: float) -> float:
    """Energy in millijoules: E = t P, and one watt for one millisecond is one millijoule.

    With a device's active power this is all that the board draws during the work, its idle share included; with
    what active power is above idle power, it is what the work adds.
    """
    return latency_ms * power_w


def cpu_occupancy(*, latency_ms: float, audio_s: float, threads: int, cores: int) -> float:
    """Share of all the device's cores that listening without a pause keeps busy: t threads / (audio cores).

    The work takes `latency_ms` for each `audio_s` seconds of audio and all its threads are busy all the time. Over 1
    the device cannot follow on `threads` threads, or not even on all cores.
    """
    return latency_ms / 1000 * threads / (audio_s * cores)
