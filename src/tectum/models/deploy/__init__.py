"""Trained networks folded for inference: the same function, computed with less work."""

from tectum.models.base import FusionSegmenter
from tectum.models.deploy.base import Deployed
from tectum.models.deploy.mafs import DeployedMAFS
from tectum.models.deploy.virmfs import DeployedViRMFS
from tectum.models.mafs import MAFS
from tectum.models.virmfs import ViRMFS

__all__ = ["Deployed", "deploy"]


def deploy(model: FusionSegmenter) -> Deployed:
    """The folded form of a network, on the same device; see `FusionSegmenter.deploy`."""
    if isinstance(model, MAFS):
        return DeployedMAFS(model).eval().requires_grad_(False)
    assert isinstance(model, ViRMFS)
    return DeployedViRMFS(model).eval().requires_grad_(False)
