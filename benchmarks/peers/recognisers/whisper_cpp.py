"""whisper.cpp by pywhispercpp's bindings, greedily, without timestamps and fallback, as one segment.

Flash attention is on, whisper.cpp's default and faster here for every type of weights. Encoder and decoder are timed by
whisper.cpp itself (`whisper_print_timings`).
"""

import re
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import _pywhispercpp as cpp  # type: ignore[import-not-found]

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure

POSITIONS_PER_S = 50
MAX_POSITIONS = 1500
POSITIONS_STEP = 256
"""With flash attention whisper.cpp 1.8.5 attends to positions in multiples of 256, without a mask: those beyond
`audio_ctx` hold zeros, or what an earlier clip left there. Other windows than 30 s are therefore rounded up to it."""
_TIMING = re.compile(r"(sample|encode|decode|batchd|prompt) time = +([0-9.]+) ms / +(\d+) runs")
_OPTIONS = {
    "greedy": {"best_of": 1},
    "temperature_inc": 0.0,  # no fallback
    "no_speech_thold": 1.0,  # no text is left out, as by no other system here
    "suppress_nst": True,  # tokens of symbols that are not spoken, which the others suppress by default
    "no_timestamps": True,
    "single_segment": True,
    "no_context": True,
    "print_progress": False,
    "print_timestamps": False,
}


def load(job: Job) -> Recognise:
    """A window of less than 30 s is asked for by `audio_ctx`."""
    (file,) = Path(job.files).iterdir()
    log: list[str] = []
    cpp.whisper_log_set(lambda _level, text: log.append(text))
    context = cpp.whisper_context_default_params()
    context.use_gpu, context.flash_attn = False, True
    model = cpp.whisper_init_from_file_with_params(str(file), context)
    options = cpp.whisper_full_default_params(cpp.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
    for name, value in (_OPTIONS | {"n_threads": job.threads}).items():
        setattr(options, name, value)
    return partial(_recognise, model, options, log)


def _recognise(model: Any, options: Any, log: list[str], samples: Floats, clip: Clip) -> Said:
    cpp.whisper_reset_timings(model)
    options.language = clip.language
    steps = ceil(clip.window_s * POSITIONS_PER_S / POSITIONS_STEP)
    options.audio_ctx = min(steps * POSITIONS_STEP, MAX_POSITIONS)
    options.max_tokens = clip.max_tokens
    if cpp.whisper_full(model, options, samples, len(samples)):
        raise RuntimeError(f"whisper.cpp failed on {clip.id}")
    texts = [cpp.whisper_full_get_segment_text(model, index) for index in range(cpp.whisper_full_n_segments(model))]
    log.clear()
    cpp.whisper_print_timings(model)
    found = {name: (float(ms) / 1000, int(runs)) for name, ms, runs in _TIMING.findall("".join(log))}
    encoder_s, _ = found.pop("encode")
    return Said(
        text=b" ".join(text.strip() for text in texts).decode(errors="replace"),
        # the first token follows from the prompt, whose run is no "decode"
        steps=found["decode"][1] + 1,
        encoder_s=encoder_s,
        decoder_s=sum(seconds for seconds, _ in found.values()),
    )


if __name__ == "__main__":
    measure(load)
    # Python cannot be called back when it ends
    cpp.whisper_log_set(None)
