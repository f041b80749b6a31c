import random
from collections.abc import Callable

import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.model import Linear, Whisper
from whisper.tokenizer import get_tokenizer

from common.errors import EvaluationError
from compression.dimensions import Dimensions
from compression.network import encode
from compression.recipe import Recipe
from evaluators.audio import read_audio
from evaluators.decoding import LOOP_PERIOD, LOOP_TOKENS, Clip, decode, is_loop
from evaluators.speech_set import Utterance
from tests.networks import network_of_shape
