"""Where a Whisper can be pruned: the attention heads and FFN channels of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from whisper.model import Linear, Whisper

Units = Literal["heads", "cross_heads", "ffn_channels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One kind of unit in one layer; `units` is also the recipe's field that says how many stay."""

    stack: Literal["encoder", "decoder"]
    layer: int
    units: Units

    @property
    def key(self) -> str:
        return f"{self.stack}.{self.layer}.{self.units}"

    @property
    def projection(self) -> str:
        """Name of the linear layer whose input columns belong to the units."""
        within = {"heads": "attn.out", "cross_heads": "cross_attn.out", "ffn_channels": "mlp.2"}
        return f"{self.stack}.blocks.{self.layer}.{within[self.units]}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the linear layers whose output rows belong to the units."""
        block = f"{self.stack}.blocks.{self.layer}"
        if self.units == "ffn_channels":
            return (f"{block}.mlp.0",)
        attention = "attn" if self.units == "heads" else "cross_attn"
        return tuple(f"{block}.{attention}.{name}" for name in ("query", "key", "value"))


def sites(network: Whisper) -> Iterator[Site]:
    """Every site of an uncompressed network, encoder first."""
    for layer in range(len(network.encoder.blocks)):
        yield Site(stack="encoder", layer=layer, units="heads")
        yield Site(stack="encoder", layer=layer, units="ffn_channels")
    for layer in range(len(network.decoder.blocks)):
        yield Site(stack="decoder", layer=layer, units="heads")
        yield Site(stack="decoder", layer=layer, units="cross_heads")
        yield Site(stack="decoder", layer=layer, units="ffn_channels")


def output_projection(network: Whisper, site: Site) -> Linear:
    """The linear layer whose input columns belong to the site's units."""
    return network.get_submodule(site.projection)


def unit_count(network: Whisper, site: Site) -> int:
    """Heads or channels that the site has."""
    block = getattr(network, site.stack).blocks[site.layer]
    if site.units == "ffn_channels":
        return int(block.mlp[2].in_features)
    return int((block.attn if site.units == "heads" else block.cross_attn).n_head)
