"""What a command tells its user while it works."""

from rich.console import Console


def tell(text: str) -> None:
    """One line on stderr, as it is: a long path is not broken, brackets are no markup."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
