"""The calibrated analytic model of Whisper on a processor: work of a case by kernel class, constants, time.

    time = windows x encoder + tokens x token + start
    encoder = products / rate of their class + attention / its rate, each at most as fast as memory feeds it
    token = max(bytes of weights and of cross-attention / memory bandwidth, multiply-adds / rate) + layers x overhead

Work comes from whisperfit's inventory. Rates are public facts of the cores (`boards_chips.py`) times constants
(`PRIORS`), which are fitted on measurements of other devices (`boards_fit.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from boards_chips import Chip, Cluster
from boards_rows import WINDOW_S, Case

from compression.recipe.dimensions import published_dimensions
from compression.recipe.recipe import Recipe
from evaluators.costs.inventory import operations

Constants = Mapping[str, float]
FAMILIES = ("whisper.cpp", "whisper.cpp BLAS", "CTranslate2", "TFLite", "ONNX Runtime", "ncnn", "PyTorch", "other")


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A constant before any row of Whisper: median, standard deviation of its logarithm, and where it is from."""

    median: float
    log_std: float
    source: str


PRIORS: dict[str, Prior] = {
    "float": Prior(
        median=0.25, log_std=0.2, source="share of float32 peak: ncnn ViT 0.24-0.26 on A72, 0.19-0.27 on A76"
    ),
    "in_order": Prior(median=0.67, log_std=0.15, source="A53 against A72, A55 against A76, shares of peak, ncnn ViT"),
    "half": Prior(median=0.18, log_std=0.3, source="share of float16 peak: ncnn ViT 0.14-0.20 on A76"),
    "dot": Prior(median=0.28, log_std=0.35, source="share of int8 peak: parakeet int8, ONNX Runtime, 4 x A76"),
    "plain": Prior(median=0.4, log_std=0.3, source="share of int8 peak without dot: XNNPACK 0.49 and ncnn 0.36 on A72"),
    "issue": Prior(median=0.75, log_std=0.2, source="share of vector issue: TinyLlama q8_0 prompts on A72 and A76"),
    "memory": Prior(median=1.5, log_std=0.2, source="read bandwidth over memcpy: language models, 1.2-2.1"),
    "stream": Prior(
        median=1.3, log_std=0.4, source="the same for activations streamed by all threads at once; a guess"
    ),
    "attention": Prior(median=0.5, log_std=0.5, source="share of the float rate; a guess"),
    "scores": Prior(median=100, log_std=0.7, source="instructions per score, ggml's softmax through a table; a guess"),
    "blas": Prior(median=0.4, log_std=0.7, source="share of the float rate where ggml's threads wait busily; a guess"),
    "debug": Prior(median=7.3, log_std=0.5, source="debug over release build, one phone, whisper.cpp issue #518"),
    "start": Prior(median=5e8, log_std=0.7, source="instructions of log-mel and start of one window; a guess"),
}
_LAYER_INSTRUCTIONS = {"whisper.cpp": 1e6, "whisper.cpp BLAS": 1e6, "PyTorch": 1e7}
_USUAL_LAYER_INSTRUCTIONS = 3e6
"""Of one thread, per decoder layer and token: about 25 calls of 40,000 instructions, more in Python; guesses."""
for _family in FAMILIES:
    PRIORS[f"encoder {_family}"] = Prior(median=1, log_std=0.2, source="the runtime against its kernel class")
    PRIORS[f"layer {_family}"] = Prior(
        median=_LAYER_INSTRUCTIONS.get(_family, _USUAL_LAYER_INSTRUCTIONS),
        log_std=0.8,
        source="instructions per token and decoder layer beside its kernels; a guess",
    )


@dataclass(frozen=True, kw_only=True)
class Product:
    """Multiply-adds of products with `inputs` float activations of two bytes each as their streamed side."""

    macs: float
    input_values: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """The work of a model: one 30 s window of the encoder, one token of the decoder."""

    products: tuple[Product, ...]
    attention_macs: float
    scores: float
    token_weights: float
    token_keys: float
    layers: int

    @property
    def encoder_macs(self) -> float:
        return sum(product.macs for product in self.products) + self.attention_macs


_TOKENS = 30


@cache
def load_of(model: str) -> Load:
    """From the inventory of the uncompressed model."""
    dimensions = published_dimensions(model)
    items = operations(dimensions, Recipe.original(dimensions), audio_s=WINDOW_S, tokens=_TOKENS)
    encoder = [item for item in items if item.stage == "encoder"]
    products = [i for i in encoder if i.operation.kind in ("gemm", "convolution")]
    attention = [i.operation for i in encoder if i.operation.kind == "attention" for _ in range(i.count)]
    gemv = [i.operation for i in items if i.operation.kind == "gemv"]
    cross = [i.operation for i in items if i.operation.kind == "cross_attention"]
    return Load(
        products=tuple(Product(macs=i.flops / 2, input_values=i.operation.m * i.operation.k) for i in products),
        attention_macs=sum(2 * o.heads * o.m * o.n * o.k for o in attention),
        scores=sum(o.heads * o.m * o.n for o in attention),
        token_weights=sum(o.k * o.n for o in gemv),
        token_keys=sum(2 * o.heads * o.n * o.k for o in cross),
        layers=dimensions.n_text_layer,
    )


def flops(case: Case) -> float:
    """Two per multiply-add of the case's stage."""
    load, share = load_of(case.model), case.window_s / WINDOW_S
    encoder = sum(p.macs for p in load.products) * share + load.attention_macs * share**2
    token = load.token_weights + load.token_keys * share
    return 2 * (case.windows * encoder + case.tokens * token) / case.per_s


def peak_flops_per_s(case: Case) -> float:
    """Threads x clock x float32 operations per cycle."""
    return sum(2 * c.count * c.ghz * 1e9 * c.core.float_macs for c in case.chip.cores(case.threads))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A chip with the threads of a case, and the constants that its rates are made with.

    `static`: the work is split evenly, so that the slowest core decides; else faster cores take more.
    """

    chip: Chip
    threads: int
    static: bool
    constants: Constants

    def _rate(self, per_core: dict[str, float]) -> float:
        used = self.chip.cores(self.threads)
        rates = [(c.count, per_core[c.core.name] * c.ghz * 1e9) for c in used]
        if self.static:
            return sum(count for count, _ in rates) * min(rate for _, rate in rates)
        return sum(count * rate for count, rate in rates)

    def _order(self, cluster: Cluster) -> float:
        return self.constants["in_order"] if cluster.core.in_order else 1.0

    def float_macs_per_s(self) -> float:
        return self._rate(
            {c.core.name: c.core.float_macs * self.constants["float"] * self._order(c) for c in self.chip.clusters}
        )

    def half_macs_per_s(self) -> float:
        """Cores without float16 arithmetic compute in float32."""
        return self._rate(
            {
                c.core.name: c.core.float_macs
                * (2 * self.constants["half"] if c.core.has_half else self.constants["float"])
                * self._order(c)
                for c in self.chip.clusters
            }
        )

    def int8_macs_per_s(self) -> float:
        return self._rate(
            {
                c.core.name: c.core.int8_macs
                * (self.constants["dot"] * self._order(c) if c.core.has_dot else self.constants["plain"])
                for c in self.chip.clusters
            }
        )

    def instructions_per_s(self) -> float:
        return self._rate({c.core.name: c.core.vector_issue * self.constants["issue"] for c in self.chip.clusters})

    def one_thread_instructions_per_s(self) -> float:
        cluster = self.chip.clusters[0]
        return cluster.core.vector_issue * self.constants["issue"] * cluster.ghz * 1e9

    def bytes_per_s(self, constant: str) -> float:
        return self.chip.memcpy_gb_s * 1e9 * self.constants[constant]

    @property
    def has_half(self) -> bool:
        return all(c.core.has_half for c in self.chip.cores(self.threads))

    @property
    def has_dot(self) -> bool:
        return all(c.core.has_dot for c in self.chip.cores(self.threads))


def ggml_instructions_per_mac(machine: Machine, weights: float) -> float:
    """Of ggml's dot products: loads, conversions and multiply-adds in its source, per multiply-add.

    float16: 3 for 8 with float16 arithmetic (and AVX2), 5 for 4 without. Quantised blocks of 32: about 12 with dot
    products for 8 bits, 16 for 4, 26 for 5; twice that without.
    """
    if weights >= 16:
        return 3 / 8 if machine.has_half or not machine.chip.is_arm else 5 / 4
    per_block = 12 if weights > 8 else 26 if weights > 5 else 16
    return per_block * (1 if machine.has_dot or not machine.chip.is_arm else 2) / 32


def _ggml_encoder_s(case: Case, load: Load, machine: Machine) -> float:
    """Older builds stream a product's activations past every row of weights: from memory if no cache holds them."""
    per_mac = ggml_instructions_per_mac(machine, case.weights)
    instructions_per_s = machine.instructions_per_s()
    seconds = 0.0
    for product in load.products:
        if case.family == "whisper.cpp BLAS":
            seconds += product.macs / (machine.float_macs_per_s() * machine.constants["blas"])
            continue
        arithmetic_s = product.macs * per_mac / instructions_per_s
        bytes_per_mac = 2 if case.weights >= 16 else 1.06
        in_cache = product.input_values * bytes_per_mac <= machine.chip.cache_bytes
        streamed = 0 if case.blocked or in_cache else product.macs * bytes_per_mac
        seconds += max(arithmetic_s, streamed / machine.bytes_per_s("stream"))
    float_per_mac = ggml_instructions_per_mac(machine, 16)
    attention = load.attention_macs * float_per_mac + load.scores * machine.constants["scores"]
    return seconds + attention / instructions_per_s


SOFTMAX_INSTRUCTIONS = 7


def _encoder_s(case: Case, load: Load, machine: Machine) -> float:
    """Runtimes with blocked products: float32, float16 (ncnn) or int8 by the weights; attention in floats."""
    if case.family == "ncnn" and case.weights >= 16:
        products_per_s = float_per_s = machine.half_macs_per_s()
    else:
        float_per_s = machine.float_macs_per_s()
        products_per_s = machine.int8_macs_per_s() if case.weights < 16 else float_per_s
    share = case.window_s / WINDOW_S
    products = sum(product.macs for product in load.products) * share / products_per_s
    attention = load.attention_macs * share**2 / (float_per_s * machine.constants["attention"])
    softmax = load.scores * share**2 * SOFTMAX_INSTRUCTIONS / machine.instructions_per_s()
    return products + attention + softmax


def _token_s(case: Case, load: Load, machine: Machine) -> float:
    """Weights as stored, but float32 in memory for PyTorch; keys and values of cross-attention in two bytes by ggml."""
    is_ggml = case.family.startswith("whisper.cpp")
    weight_bits = 32 if case.family == "PyTorch" else case.weights
    keys = load.token_keys * case.window_s / WINDOW_S
    streamed = load.token_weights * weight_bits / 8 + keys * (2 if is_ggml else 4)
    per_mac = ggml_instructions_per_mac(machine, case.weights) if is_ggml else 0.5
    arithmetic_s = (load.token_weights + keys) * per_mac / machine.instructions_per_s()
    overhead = load.layers * machine.constants[f"layer {case.family}"]
    return (
        max(streamed / machine.bytes_per_s("memory"), arithmetic_s) + overhead / machine.one_thread_instructions_per_s()
    )


def predict_ms(case: Case, constants: Constants) -> float:
    """The module's formula, in milliseconds (per second of audio where the row is a real-time factor)."""
    load = load_of(case.model)
    static = case.family.startswith(("whisper.cpp", "PyTorch"))
    machine = Machine(chip=case.chip, threads=case.threads, static=static, constants=constants)
    encoder = _ggml_encoder_s if case.family.startswith("whisper.cpp") else _encoder_s
    seconds = case.windows * encoder(case, load, machine) * constants[f"encoder {case.family}"]
    seconds += case.tokens * _token_s(case, load, machine)
    if case.end_to_end:
        seconds += case.windows * constants["start"] / machine.one_thread_instructions_per_s()
    return 1000 * seconds * (constants["debug"] if case.debug else 1.0) / case.per_s
