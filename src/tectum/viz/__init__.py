"""Pictures for people: label overlays, legends, side-by-side panels. NumPy and Pillow only."""

from tectum.viz.overlay import legend, overlay
from tectum.viz.panel import grid, panel

__all__ = ["grid", "legend", "overlay", "panel"]
