"""Street scenes rendered as exact triples of visible image, infrared image and MSRS labels.

A scene is a street in metres: planar polygons with a material, seen by a pinhole camera, drawn far to near into a
buffer of polygon numbers at three times the size. Everything else follows from that one buffer: the labels are the
numbers at the pixel centres, the visible image is lit per pixel from the polygons' planes (sun, sky, lamps, headlights,
fog), and the infrared image comes from the polygons' temperatures. Both are averaged over the 3 x 3 samples of a pixel,
so the three pictures are aligned exactly.

The street is drawn from the seed alone and the condition changes only light, air and the sun's warmth: one seed gives
the same street by day, at night, against headlights (`glare`) and in fog. Glare adds a pedestrian beside dazzling
headlights, whom the visible image hides and the infrared image shows, and leaves out a car that would cross in front.

Labels are the nine of MSRS, with their meaning there: `curve` is the kerb, `car stop` a bollard or a barrier against
cars, `guardrail` a railing, `bump` a raised strip across the road. A rider is a person, what they ride is a bike.
"""

from tectum.scenes.render import CONDITIONS, render_scene, write_scenes

__all__ = ["CONDITIONS", "render_scene", "write_scenes"]
