import pytest
import torch
from whisper.model import Linear

from compression.techniques.activations import DynamicLinear, StaticLinear, fake_quantise


def quantise_like_onnx(values: torch.Tensor, bits: int) -> torch.Tensor:
    """DynamicQuantizeLinear as the ONNX specification words it, one tensor, element by element."""
    levels = 2**bits - 1
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = (high - low) / levels
    zero = min(max(round(-low / scale), 0), levels)
    codes = [min(max(round(v / scale) + zero, 0), levels) for v in values.flatten().tolist()]
    return torch.tensor([(c - zero) * scale for c in codes]).view_as(values)


@pytest.fixture
def linear() -> Linear:
    torch.manual_seed(0)
    return Linear(6, 4)


@pytest.mark.parametrize("bits", [8, 16])
def test_dynamic_ranges_are_those_of_each_clip(linear: Linear, bits: int) -> None:
    x = torch.randn(3, 5, 6) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1)
    expected = torch.stack([linear(quantise_like_onnx(clip, bits)) for clip in x])
    assert torch.allclose(DynamicLinear(linear, bits=bits, range_over="clip")(x), expected, atol=1e-4)


def test_dynamic_ranges_are_those_of_each_token(linear: Linear) -> None:
    x = torch.randn(2, 3, 6)
    expected = torch.stack([torch.stack([linear(quantise_like_onnx(t, 8)) for t in clip]) for clip in x])
    assert torch.allclose(DynamicLinear(linear, bits=8, range_over="token")(x), expected, atol=1e-4)


def test_static_ranges_clip(linear: Linear) -> None:
    layer = StaticLinear(linear, bits=8, low=-1.0, high=1.0)
    far = torch.full((1, 1, 6), 50.0)
    assert torch.allclose(layer(far), linear(torch.full((1, 1, 6), 1.0)), atol=0.01)


def test_a_constant_zero_input_stays_zero() -> None:
    zero = torch.zeros(1, 4)
    assert torch.equal(fake_quantise(zero, torch.tensor(0.0), torch.tensor(0.0), 8), zero)
