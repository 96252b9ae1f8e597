"""Share of warm objects that a fused image keeps: python benchmarks/warm_objects.py MSRS --model NAME.

Over all pairs of a split with labels: of the salient pixels (`tectum.losses.fusion.saliency_mask`) at which infrared is
brighter than the luminance by 5 % of the range, the share at which the fused image is at least as bright as infrared
less 10 grey levels. Nothing is lost that way by taking the brighter source; it says nothing of what is lost elsewhere.
"""

import argparse

import torch

import tectum
from tectum.data.datasets import pair_table
from tectum.data.pair import read_pair
from tectum.losses.fusion import saliency_mask
from tectum.predict.colour import luminance

MARGIN = 0.05
LOSS = 10 / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="data set in MSRS's layout, with labels")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=tectum.DEFAULT_WEIGHTS)
    arguments = parser.parse_args()

    predictor = tectum.Predictor(arguments.model, backend="torch", device="cpu")
    kept = salient = 0
    for paths in pair_table(arguments.root, "msrs", arguments.split):
        pair = read_pair(paths, classes=9)
        assert pair.label is not None
        fused, light, infrared = (
            torch.from_numpy(image)[None, None]
            for image in (
                predictor(visible=paths.visible, infrared=paths.infrared).luminance,
                luminance(pair.visible),
                pair.infrared,
            )
        )
        labels = torch.from_numpy(pair.label).long()[None]
        mask = saliency_mask(infrared, labels) & (infrared > light + MARGIN)
        kept += int((mask & (fused >= infrared - LOSS)).sum())
        salient += int(mask.sum())
    print(f"{arguments.model}: {kept / salient:.1%} of {salient} salient pixels kept")


if __name__ == "__main__":
    main()
