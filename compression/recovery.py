"""What a recipe says of weights that were made better after units left or bits went; see docs/training.md."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from common.errors import InputError

Stack = Literal["encoder", "decoder"]
STACKS: tuple[Stack, ...] = get_args(Stack)
RecoveryMethod = Literal["reconstruct", "distill", "qat"]
RECOVERY_METHODS: tuple[RecoveryMethod, ...] = get_args(RecoveryMethod)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """`weights_sha256`: digest of the parameters that came out, which lie in a file beside the recipe.

    They are no function of the rest of the recipe (see `compression.recovered`). `nearest`: the stacks whose trained
    weights go to the nearest points whatever the recipe's `rounding`, because quantisation-aware training read them so.
    """

    method: RecoveryMethod
    weights_sha256: str
    nearest: tuple[Stack, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in RECOVERY_METHODS:
            raise InputError(f"recipe: recovery method must be one of {RECOVERY_METHODS}, but got {self.method!r}")
        digest = self.weights_sha256
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise InputError(f"recipe: weights_sha256 must be 64 hexadecimal digits, but got {digest!r}")
        if not set(self.nearest) <= set(STACKS):
            raise InputError(f"recipe: nearest must be of {STACKS}, but got {self.nearest!r}")
