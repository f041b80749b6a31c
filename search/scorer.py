"""From a recipe to a trial: price it, compress the model, score it on speech."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from whisper.model import Whisper

from common.errors import CompressionError, EvaluationError
from compression.compress import compress
from compression.recipe import Recipe
from evaluators.accuracy import Accuracy
from evaluators.costs import price
from search.budget import WerBudget
from search.session import Session
from search.space import runtime_violation
from search.stopping import surely_over_budget
from search.trial import Trial, TrialAccuracy, TrialCosts, TrialState, UtteranceErrors
