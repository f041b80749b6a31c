import pytest

from common import errors
from common.errors import CompressionError, EvaluationError, InputError, UnknownNameError, WhisperfitError

DEVICES = ("rpi5", "imx8qm", "imx8mplus")


def test_a_near_name_is_suggested_and_the_known_ones_are_sorted():
    assert str(UnknownNameError("device", "imx8mplos", DEVICES)) == (
        "unknown device 'imx8mplos'. Did you mean 'imx8mplus'? Known: imx8mplus, imx8qm, rpi5"
    )


def test_nothing_is_suggested_when_no_name_is_near():
    assert (
        str(UnknownNameError("device", "toaster", DEVICES))
        == "unknown device 'toaster'. Known: imx8mplus, imx8qm, rpi5"
    )


@pytest.mark.parametrize("name", ["", "two\nlines", "'"])
def test_any_name_gives_one_line(name):
    assert "\n" not in str(UnknownNameError("device", name, DEVICES))


def test_the_tree_is_the_one_in_the_docstring():
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    parents = {
        InputError: WhisperfitError,
        UnknownNameError: InputError,
        CompressionError: WhisperfitError,
        EvaluationError: WhisperfitError,
    }
    assert defined == {WhisperfitError, *parents}
    assert all(child.__bases__ == (parent,) for child, parent in parents.items())
    lines = (errors.__doc__ or "").splitlines()
    assert all(any(kind.__name__ in line for line in lines) for kind in defined)
