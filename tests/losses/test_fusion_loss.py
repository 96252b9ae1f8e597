import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from tectum.data.pair import IGNORE
from tectum.losses.fusion import (
    detailed_intensity_loss,
    detailed_target,
    directional_gradient_loss,
    gradient_loss,
    intensity_loss,
    local_variance,
    saliency_mask,
    selected_intensity_loss,
    sobel_gradient,
)
from tectum.models.layers.selection import LIFT, LIFT_THRESHOLD


def random_image(height=24, width=32, seed=0):
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))


def flat(value, height=24, width=32):
    return torch.full((1, 1, height, width), value)


def chequered(low, high, height=24, width=32):
    dark = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
    return torch.where(dark, low, high)[None, None]


def nowhere(image):
    return torch.zeros_like(image, dtype=torch.bool)


def left_half(image):
    mask = nowhere(image)
    mask[..., : mask.shape[-1] // 2] = True
    return mask


def labels_of(image, value=IGNORE):
    return torch.full(image[:, 0].shape, value)


def test_sobel_of_a_step_edge():
    image = torch.zeros(1, 1, 5, 6)
    image[..., 3:] = 1
    gradient = sobel_gradient(image)
    # Away from the border: 1 + 2 + 1 = 4 on both sides of the edge, nothing elsewhere.
    assert gradient[0, 0, 2].tolist() == [0, 0, 4, 4, 0, 4]
    assert gradient.shape == image.shape


def test_losses_are_zero_at_their_target():
    visible = torch.rand(1, 1, 8, 8)
    assert intensity_loss(visible, visible, visible * 0.5) == 0
    assert gradient_loss(visible, visible, torch.zeros_like(visible)) == 0


def test_intensity_target_is_the_brighter_source():
    visible, infrared = torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([[[[0.6, 0.1]]]])
    assert intensity_loss(torch.tensor([[[[0.5, 0.5]]]]), visible, infrared).item() == pytest.approx((0.1 + 0.3) / 2)


def test_gradient_target_is_the_stronger_edge():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    weak, strong = 0.1 * ramp, -0.3 * ramp
    assert gradient_loss(0.3 * ramp, weak, strong).item() == pytest.approx(0, abs=1e-6)
    assert gradient_loss(weak, weak, strong) > 0.5


def test_detailed_target_is_the_brighter_source_where_neither_has_detail():
    dim, dark = flat(0.07), flat(0.02)
    assert torch.equal(detailed_target(dim, dark, nowhere(dim)), dim)
    assert torch.equal(detailed_target(dark, dim, nowhere(dim)), dim)


def test_detailed_target_is_the_source_of_detail_though_it_is_darker():
    # Edges of 0.06 with a gradient of some 0.24: worth more than 0.05 of brightness, but not 0.5.
    stripes = torch.where(torch.arange(32) % 4 < 2, 0.0, 0.06).expand(1, 1, 24, 32)
    for visible_first in (True, False):
        for smooth, expected in ((flat(0.08), stripes), (flat(0.5), flat(0.5))):
            pair = (stripes, smooth) if visible_first else (smooth, stripes)
            assert torch.equal(detailed_target(*pair, nowhere(stripes)), expected)


def test_noise_of_the_thermal_sensor_is_no_detail():
    noise = 0.006 * (torch.arange(32) % 4 < 2).float().expand(1, 1, 24, 32)  # Sobel responses of 0.024
    light = flat(0.01)
    assert torch.equal(detailed_target(light, noise, nowhere(light)), light)
    assert torch.equal(detailed_target(noise, light, nowhere(light)), noise)  # the same in the visible image is


def test_detailed_target_keeps_what_is_warm_where_it_is_the_brighter_source():
    stripes = torch.where(torch.arange(32) % 4 < 2, 0.0, 0.06).expand(1, 1, 24, 32)
    salient = torch.arange(32).expand(1, 1, 24, 32) < 16
    target = detailed_target(stripes, flat(0.04), salient)
    assert torch.equal(target, torch.where(salient & (stripes < 0.04), flat(0.04), stripes))


def test_detailed_target_is_lifted_where_both_sources_are_bright():
    lifted = detailed_target(flat(0.6), flat(LIFT_THRESHOLD + 0.2), nowhere(flat(0.6)))
    torch.testing.assert_close(lifted, flat(0.6 + 0.2 * LIFT))


def test_detailed_intensity_is_the_distance_from_the_target():
    visible, infrared = random_image(), random_image(seed=1)
    salient = random_image(seed=2) > 0.5
    target = detailed_target(visible, infrared, salient)
    assert detailed_intensity_loss(target, visible, infrared, salient) == 0
    weights = torch.where(salient & (infrared > visible), 4.0, 1.0)
    off = detailed_intensity_loss(target - 0.1, visible, infrared, salient)
    torch.testing.assert_close(off, 0.1 * weights.mean())


def test_directional_gradient_of_a_single_pixel():
    black = torch.zeros(1, 1, 3, 3)
    corner = black.clone()
    corner[..., 0, 0] = 0.5
    # The pixel weighs 2 in its neighbour and 1 in its diagonal neighbour, in x as in y.
    expected = pytest.approx(2 * (2 + 1) * 0.5 / 9)
    assert directional_gradient_loss(black, corner, black).item() == expected
    assert directional_gradient_loss(black, black, corner).item() == expected
    assert directional_gradient_loss(corner, black, black).item() == expected
    assert directional_gradient_loss(corner, corner, black) == 0


def test_directional_gradient_is_blind_to_the_sign_of_an_edge():
    image = random_image()
    assert directional_gradient_loss(-image, image, 0.5 * image) == 0


def test_directional_gradient_wants_each_direction_from_its_stronger_source():
    across = 2 * torch.arange(16.0).expand(1, 1, 16, 16)
    down = 3 * torch.arange(16.0).expand(1, 1, 16, 16).mT
    fused = (across + down).requires_grad_()
    # Only the border, where zero padding makes other edges of the sum than of its parts, is off the target.
    directional_gradient_loss(fused, across, down).backward()
    assert (fused.grad[..., 3:-3, 3:-3] == 0).all()
    assert directional_gradient_loss(across, across, down) >= 8 * 3 * (14 / 16) ** 2
    assert directional_gradient_loss(down, across, down) >= 8 * 2 * (14 / 16) ** 2


@pytest.mark.parametrize(("height", "width"), [(24, 32), (8, 8), (9, 41)])
def test_local_variance_against_scipy(height, width):
    image = random_image(height, width)

    def mean(array):  # scipy's "mirror" is the reflection that does not repeat the border pixel
        return gaussian_filter(array, 1.5, mode="mirror", radius=4)

    array = image[0, 0].double().numpy()
    np.testing.assert_allclose(local_variance(image)[0, 0], mean(array**2) - mean(array) ** 2, atol=1e-6)
    assert local_variance(image).shape == image.shape


def test_intensity_is_that_of_the_source_of_more_variance():
    strong, weak, fused = chequered(0.2, 0.8), chequered(0.8, 0.9), flat(0.5)
    assert selected_intensity_loss(fused, weak, strong, nowhere(fused)).item() == pytest.approx(0.3**2)
    assert selected_intensity_loss(fused, strong, weak, nowhere(fused)).item() == pytest.approx(0.3**2)
    assert selected_intensity_loss(strong, weak, strong, nowhere(fused)) == 0
    assert selected_intensity_loss(strong, strong, weak, nowhere(fused)) == 0


def test_intensity_is_infrared_within_the_mask_and_visible_elsewhere():
    visible, infrared, fused = chequered(0.2, 0.8), flat(0.9), flat(0.5)
    in_visible, in_infrared = 0.3**2, 0.4**2
    loss = selected_intensity_loss(fused, visible, infrared, left_half(fused))
    assert loss.item() == pytest.approx((in_visible + in_infrared) / 2)
    assert selected_intensity_loss(infrared, visible, infrared, ~nowhere(fused)) == 0


def test_fused_equal_to_its_source_costs_only_where_a_box_sees_both():
    visible, infrared = chequered(0.2, 0.8), flat(0.9)
    mask = left_half(visible)
    error = (torch.where(mask, infrared, visible) - torch.where(mask, visible, infrared)).square().mean()
    fused = torch.where(mask, infrared, visible).requires_grad_()
    loss = selected_intensity_loss(fused, visible, infrared, mask)
    # Of 32 columns, the 4 on each side of the mask's edge have 4, 3, 2 and 1 of 9 columns from the other side.
    assert loss.item() == pytest.approx(error.item() * 2 * (4 + 3 + 2 + 1) / 9 / 32, rel=0.02)
    loss.backward()
    assert (fused.grad[..., :12] == 0).all()
    assert (fused.grad[..., 20:] == 0).all()


@pytest.mark.parametrize(("row", "column", "weight"), [(12, 16, 1), (0, 0, sum(1 / n for n in range(5, 10)) ** 2)])
def test_boxes_at_the_border_average_the_pixels_they_have(row, column, weight):
    visible, infrared = chequered(0.2, 0.8), flat(0.9)
    fused = visible.clone()
    fused[..., row, column] += 0.1
    loss = selected_intensity_loss(fused, visible, infrared, nowhere(fused))
    assert loss.item() == pytest.approx(weight * 0.1**2 / (24 * 32), rel=1e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 40)])
def test_the_fused_image_gets_gradients_at_any_size(height, width):
    visible, infrared, fused = (random_image(height, width, seed) for seed in range(3))
    mask = saliency_mask(infrared, labels_of(infrared))
    fused.requires_grad_()
    losses = (
        directional_gradient_loss(fused, visible, infrared),
        selected_intensity_loss(fused, visible, infrared, mask),
    )
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, fused)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def warm_spot(contrast, background=0.2):
    """128 x 160 pixels with a square of 8 x 8, whose contrast hardly counts in the mean of its surroundings."""
    infrared = flat(background, 128, 160)
    infrared[..., 60:68, 80:88] += contrast
    return infrared, infrared > background


def test_without_labels_strong_infrared_contrast_is_salient():
    infrared, spot = warm_spot(0.2)
    assert torch.equal(saliency_mask(infrared, labels_of(infrared)), spot)
    for contrast in (0.1, -0.2):
        weak, _ = warm_spot(contrast)
        assert not saliency_mask(weak, labels_of(weak)).any()


def test_a_person_near_the_camera_is_salient_without_a_hole():
    infrared = flat(0.2, 192, 192)
    infrared[..., 32:160, 80:112] = 0.5
    assert torch.equal(saliency_mask(infrared, labels_of(infrared)), infrared > 0.2)


def test_contrast_is_against_the_surroundings_not_the_whole_image():
    infrared, spot = warm_spot(0.2)
    infrared = torch.cat((infrared, flat(0.9, 128, 300)), dim=3)
    mask = saliency_mask(infrared, labels_of(infrared))
    assert torch.equal(mask[..., :100], spot[..., :100])
    assert not mask[..., -200:].any()


def test_with_labels_only_a_foreground_that_is_warmer_is_salient():
    infrared, spot = warm_spot(0.1)
    labels = torch.where(spot[:, 0], 2, 0)
    assert torch.equal(saliency_mask(infrared, labels), spot)
    assert not saliency_mask(infrared, torch.where(spot[:, 0], 0, 2)).any()  # a cold foreground
    hot, _ = warm_spot(0.2)
    assert not saliency_mask(hot, torch.where(spot[:, 0], IGNORE, 0)).any()
    for contrast in (0.03, -0.2):
        cold, _ = warm_spot(contrast)
        assert not saliency_mask(cold, labels).any()


def test_each_pair_of_a_batch_has_its_own_rule():
    infrared, spot = warm_spot(0.2)
    unlabelled, background = labels_of(infrared), labels_of(infrared, 0)
    mask = saliency_mask(infrared.expand(3, -1, -1, -1), torch.cat((unlabelled, background, unlabelled)))
    assert torch.equal(mask, torch.cat((spot, nowhere(spot), spot)))


def test_people_of_a_real_pair_are_salient_and_the_background_is_not(shared_data):
    folder = shared_data / "MSRS-consensus" / "train"
    names = sorted(path.name for path in (folder / "ir").iterdir())[:10]
    salient, total = np.zeros(2), np.zeros(2)
    for name in names:
        infrared = torch.from_numpy(np.array(Image.open(folder / "ir" / name).convert("L"))).float()[None, None] / 255
        labels = torch.from_numpy(np.array(Image.open(folder / "Segmentation_labels" / name))).long()
        mask = saliency_mask(infrared, labels_of(infrared))[0, 0]
        for index, label in enumerate((0, 2)):
            salient[index] += (mask & (labels == label)).sum().item()
            total[index] += (labels == label).sum().item()
    background, people = salient / total
    assert background < 0.02
    assert people > 0.25
