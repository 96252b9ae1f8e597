"""The ViR-MFS family: network, its folded form, the authors' checkpoint."""

from tectum.models.virmfs.network import PRESETS, DeployedViRMFS, MaskedAutoencoder, ViRMFS

__all__ = ["PRESETS", "DeployedViRMFS", "MaskedAutoencoder", "ViRMFS"]
