import numpy as np
import pytest
import pywt
import torch

from tectum.models.layers.haar import haar_dwt, haar_idwt, haar_ll


@pytest.mark.parametrize("size", [(2, 2), (6, 4), (32, 48)])
def test_bands_equal_pywavelets(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    ll, (rows, columns, both) = pywt.dwt2(x.numpy(), "db1", axes=(-2, -1))
    # PyWavelets gives (horizontal, vertical, diagonal) details: those filtered high along rows, columns, both.
    expected = np.stack([ll, rows, columns, both], axis=2)
    np.testing.assert_allclose(haar_dwt(x).numpy(), expected, atol=1e-12)


def test_inverse_is_exact():
    x = torch.randn(1, 2, 8, 10, dtype=torch.float64)
    torch.testing.assert_close(haar_idwt(haar_dwt(x)), x, atol=1e-15, rtol=0)


def test_energy_is_preserved():
    x = torch.randn(1, 2, 8, 10, dtype=torch.float64)
    torch.testing.assert_close(haar_dwt(x).square().sum(), x.square().sum())


def test_ll_alone_is_the_first_band():
    x = torch.randn(1, 2, 8, 10)
    torch.testing.assert_close(haar_ll(x), haar_dwt(x)[:, :, 0])
