"""whisper.cpp by pywhispercpp, greedily, without timestamps and fallback, as one segment, with flash attention.

Encoder and decoder are timed by whisper.cpp itself (`whisper_print_timings`); its encoder includes cross-attention's
keys and values, as ours does.
"""

import re
from functools import partial
from pathlib import Path

import _pywhispercpp as bindings
from pywhispercpp.model import Model

from recognisers.timed import Clip, Floats, Job, Recognise, Said, measure

POSITIONS_PER_S = 50
_TIMING = re.compile(r"(sample|encode|decode|batchd|prompt) time = +([0-9.]+) ms / +(\d+) runs")
_OPTIONS = {
    "greedy": {"best_of": 1},
    "temperature_inc": 0.0,  # no fallback
    "no_speech_thold": 1.0,  # no text is left out, as by no other system here
    "suppress_nst": True,  # tokens of symbols that are not spoken, which the other systems suppress by default
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
    bindings.whisper_log_set(lambda _level, text: log.append(text))
    context = {"use_gpu": False, "flash_attn": True}
    model = Model(str(file), context_params=context, n_threads=job.threads, **_OPTIONS)
    return partial(_recognise, model, log)


def _recognise(model: Model, log: list[str], samples: Floats, clip: Clip) -> Said:
    bindings.whisper_reset_timings(model._ctx)
    positions = round(clip.window_s * POSITIONS_PER_S)
    segments = model.transcribe(samples, language=clip.language, audio_ctx=positions, max_tokens=clip.max_tokens)
    log.clear()
    model.print_timings()
    found = {name: (float(ms) / 1000, int(runs)) for name, ms, runs in _TIMING.findall("".join(log))}
    decoder_s = sum(seconds for seconds, _ in found.values()) - found["encode"][0]
    return Said(
        text=" ".join(segment.text.strip() for segment in segments),
        # the first token comes from the prompt's run, which counts apart
        steps=found["decode"][1] + 1,
        encoder_s=found["encode"][0],
        decoder_s=decoder_s,
    )


if __name__ == "__main__":
    measure(load)
    # at exit, Python could no longer be called back
    bindings.whisper_log_set(None)
