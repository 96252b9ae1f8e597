"""The MAFS family: network, its folded form, the authors' checkpoint."""

from tectum.models.mafs.network import MAFS, PRESETS, DeployedMAFS, MaskedAutoencoder, Reconstruction

__all__ = ["MAFS", "PRESETS", "DeployedMAFS", "MaskedAutoencoder", "Reconstruction"]
