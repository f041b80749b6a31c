"""Everything that the trials of one run share, loaded and checked before the first of them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.errors import InputError
from compression.calibration import Calibration
from compression.models import LoadedModel, load_model
from compression.recipe import Recipe
from devices.profile import DeviceProfile, load_profile
from evaluators.calibration_speech import calibrate
from evaluators.evaluator import Evaluator
from evaluators.sample_speech import sample_speech
from evaluators.speech_set import SpeechSet, load_speech_set
from search.budget import CostLimits
from search.config import SearchConfig
from search.space import PRESETS, Space, check_choices, load_choices

Say = Callable[[str], None]
"""Tells the user what is going on."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """`confirm` is None when the run has no confirm set."""

    config: SearchConfig
    profile: DeviceProfile
    model: LoadedModel
    original: Recipe
    space: Space
    calibration: Calibration
    limits: CostLimits
    evaluator: Evaluator
    confirm: Evaluator | None


def open_session(config: SearchConfig, say: Say) -> Session:
    """Load and check everything; the errors that a user can cause come from here, before any trial."""
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    profile = load_profile(config.device)
    space_choices = None if config.space in PRESETS else load_choices(Path(config.space))
    speech = _speech(config, config.data)
    confirm = _speech(config, config.confirm) if config.confirm else None
    calibration_speech = _speech(config, config.calibration) if config.calibration else speech
    say(f"Loading {config.model}")
    model = load_model(config.model)
    say(f"Calibrating on {min(config.calibration_utterances, len(calibration_speech.utterances))} utterances (cached)")
    calibration = calibrate(model, calibration_speech, limit=config.calibration_utterances)
    original = Recipe.original(model.dimensions, stored_bits=model.stored_bits)
    choices = space_choices or PRESETS[config.space](model.dimensions, profile.runtime, model.stored_bits)
    space = Space(
        original=original,
        dimensions=model.dimensions,
        choices=choices,
        importance=calibration.importance(original.importance),
        channel_block=profile.runtime.channel_multiple,
    )
    check_choices(space, profile.runtime)
    return Session(
        config=config,
        profile=profile,
        model=model,
        original=original,
        space=space,
        calibration=calibration,
        limits=config.cost_limits(profile.ram_available_mb),
        evaluator=Evaluator(speech, model, seed=config.seed),
        confirm=Evaluator(confirm, model, seed=config.seed) if confirm else None,
    )
