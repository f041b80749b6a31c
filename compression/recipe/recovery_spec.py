"""What a recipe says of weights that were made better after units left or bits went; see docs/training.md."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from common.errors import require

Stack = Literal["encoder", "decoder"]
STACKS: tuple[Stack, ...] = get_args(Stack)
RecoveryMethod = Literal["reconstruct", "distill", "qat", "scales"]
RECOVERY_METHODS: tuple[RecoveryMethod, ...] = get_args(RecoveryMethod)
ROUNDED_IN_TRAINING: tuple[RecoveryMethod, ...] = ("qat", "scales")
"""Those that read weights as they are stored, at the nearest points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """`weights_sha256`: digest of the parameters that came out, which lie in a file beside the recipe.

    They are no function of the rest of the recipe (see `compression.techniques.trained_weights`). `nearest`: the stacks
    whose trained weights go to the nearest points whatever the recipe's `rounding`, because training read them so.
    """

    method: RecoveryMethod
    weights_sha256: str
    nearest: tuple[Stack, ...] = ()

    def __post_init__(self) -> None:
        require(self.method in RECOVERY_METHODS, f"method in {RECOVERY_METHODS}", self.method)
        digest = self.weights_sha256
        is_digest = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
        require(is_digest, "weights_sha256 of 64 hexadecimal digits", digest)
        is_stacks = isinstance(self.nearest, tuple) and all(stack in STACKS for stack in self.nearest)
        require(is_stacks, f"nearest of {STACKS}", self.nearest)
        object.__setattr__(self, "nearest", tuple(stack for stack in STACKS if stack in self.nearest))
