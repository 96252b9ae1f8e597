"""Losses between the logits of a student and a teacher."""

import torch.nn.functional as F
from torch import Tensor


def channel_distillation(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Channel-wise distillation: Kullback-Leibler divergence between the two spatial distributions of each channel.

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction" (ICCV 2021), as released with MAFS:
    φ = softmax of a channel's logits / T over its H * W positions, and the loss is
    T² / (B * K) * Σ φ_teacher log(φ_teacher / φ_student). It compares where a class is, not how it stands against
    the others: a constant added to a channel changes nothing.

    Args:
        student: (B, K, H, W) logits.
        teacher: (B, K, H, W) logits, same size; no gradient reaches them.
        temperature: T; larger compares more of the map than its peaks.

    Returns:
        Scalar, at least 0.
    """
    batch, channels = student.shape[:2]
    # Logarithms throughout: on a map of many pixels most of the probabilities themselves are 0 in float32.
    log_student = F.log_softmax(student.flatten(2) / temperature, dim=2)
    log_teacher = F.log_softmax(teacher.detach().flatten(2) / temperature, dim=2)
    divergence = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / (batch * channels)
