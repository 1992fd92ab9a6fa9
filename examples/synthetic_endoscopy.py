"""Synthetic endoscopy scenes: a rendered colon with one polyp and its exact mask.

These images come from no photograph, no patient and no data set. They are geometry (a bent tube with folds and one bump
on its wall), ray marched with a lamp beside the camera. The demo segments them without a download, and the notebook
trains on them. A model trained on them is of no use for real images, and they say nothing about accuracy.

    python examples/synthetic_endoscopy.py examples/images --seeds 0 12 16    (made the scenes of the demo)
    python examples/synthetic_endoscopy.py scenes/images --masks scenes/masks  (pairs of image and mask)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

FloatArray = NDArray[np.float32]

FIELD_OF_VIEW = 125.0  # degrees across the width; colonoscopes have 120 to 170
MARCH_STEPS = 130
MARCH_CAUTION = 0.4  # the wall's distance is a bound only up to the steepness of its folds
SOFTNESS = 0.08  # how broadly the mucosa runs up onto the polyp, in tube radii
FARTHEST = 9.0  # in tube radii; beyond it the lamp reaches nothing


@dataclass(frozen=True)
class Scene:
    """One rendered scene.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) bool, True where the visible surface belongs to the polyp.
        seed: Seed that the scene was drawn from.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    seed: int


@dataclass(frozen=True)
class Folds:
    """Ring folds of the wall, each (N,): where they are, how they lean, how high and how thick they are."""

    depth: FloatArray
    lean: FloatArray
    azimuth: FloatArray
    height: FloatArray
    width: FloatArray


@dataclass(frozen=True)
class Polyp:
    """A sessile bump: an ellipsoid whose base sinks into the wall. Lengths in tube radii."""

    center: FloatArray
    axes: FloatArray  # (3, 3), rows: along the wall's normal, and two along the wall
    radii: FloatArray
    waves: FloatArray  # (3, K): directions and frequencies of the lobes on its surface
    phases: FloatArray  # (K,)
    color: FloatArray


@dataclass(frozen=True)
class Anatomy:
    """Everything that a seed decides about the colon before it is looked at."""

    bend: FloatArray  # (2, 3): amplitude, frequency, phase of the center line in x and in y
    folds: Folds
    polyp: Polyp
    noise: FloatArray  # (32, 32, 32) lattice of a periodic value noise
    vessels: FloatArray  # (h, w) in [0, 1], unrolled wall: rows along the tube, columns around it
    mucosa: FloatArray


def render(seed: int, *, size: tuple[int, int] = (480, 600)) -> Scene:
    """Render the scene of a seed; the same seed and size give the same pixels.

    Args:
        seed: Any integer of at least 0.
        size: (H, W) of the image.

    Example:
        >>> scene = render(0, size=(96, 120))
        >>> scene.image.shape, scene.mask.shape
        ((96, 120, 3), (96, 120))
    """
    random = np.random.default_rng(seed)
    anatomy = _draw_anatomy(random)
    rays = _camera_rays(size, _facing(anatomy.polyp.center, random))
    points = _march(anatomy, rays)
    share = _share_of_polyp(anatomy, points)
    radiance = _shade(anatomy, points, rays, share[:, None]).reshape(*size, 3)
    radiance = _without_jagged_outlines(radiance, np.linalg.norm(points, axis=1).reshape(size))
    aperture = _aperture(size)
    image = _develop(radiance, aperture, random)
    mask = (share.reshape(size) > 0.5) & (aperture > 0.5)
    return Scene(image=image, mask=mask, seed=seed)


# --- what the colon looks like -----------------------------------------------------------------------------


def _draw_anatomy(random: np.random.Generator) -> Anatomy:
    bend = np.stack(
        [random.uniform(0.25, 0.6, 2), random.uniform(0.35, 0.6, 2), random.uniform(0, 2 * np.pi, 2)], axis=1
    ).astype(np.float32)
    return Anatomy(
        bend=bend,
        folds=_draw_folds(random),
        polyp=_draw_polyp(random, bend),
        noise=random.random((32, 32, 32), dtype=np.float32),
        vessels=_draw_vessels(random),
        mucosa=_floats([0.84, 0.25, 0.155]) * random.uniform(0.88, 1.1, 3).astype(np.float32),
    )


def _draw_folds(random: np.random.Generator) -> Folds:
    depth = np.cumsum(random.uniform(0.75, 1.15, 8)) + random.uniform(0.5, 0.9)
    return Folds(
        depth=depth.astype(np.float32),
        lean=random.uniform(-0.3, 0.3, 8).astype(np.float32),
        azimuth=random.uniform(0, 2 * np.pi, 8).astype(np.float32),
        height=random.uniform(0.24, 0.5, 8).astype(np.float32),
        width=random.uniform(0.1, 0.17, 8).astype(np.float32),
    )


def _draw_polyp(random: np.random.Generator, bend: FloatArray) -> Polyp:
    azimuth, depth = random.uniform(0, 2 * np.pi), random.uniform(0.85, 1.35)
    radius = random.uniform(0.26, 0.42)
    inward = -_floats([np.cos(azimuth), np.sin(azimuth), 0.25])
    inward /= np.linalg.norm(inward)
    along = np.cross(inward, _floats([-np.sin(azimuth), np.cos(azimuth), 0.0]))
    center = _floats([np.cos(azimuth), np.sin(azimuth), 0.0]) * (0.97 - 0.5 * radius)
    center[:2] += _centre_line(bend, _floats([depth]))[:, 0]
    center[2] = depth
    return Polyp(
        center=center,
        axes=np.stack([inward, along, np.cross(inward, along)]).astype(np.float32),
        radii=_floats(radius * random.uniform([0.85, 0.9, 0.75], [1.15, 1.3, 1.05])),
        waves=random.normal(0, 3.0, (3, 6)).astype(np.float32),
        phases=random.uniform(0, 2 * np.pi, 6).astype(np.float32),
        color=_floats([0.88, 0.21, 0.13]) * random.uniform(0.92, 1.08, 3).astype(np.float32),
    )


def _draw_vessels(random: np.random.Generator) -> FloatArray:
    """Branching vessels drawn on the unrolled wall; columns wrap around."""
    height, width = 1536, 1024
    canvas = np.zeros((height, 3 * width), np.float32)
    for _ in range(150):
        start = np.array([random.uniform(0, width) + width, random.uniform(0, height)])
        _grow_vessel(canvas, random, start, random.uniform(0, 2 * np.pi), thickness=random.uniform(1.6, 4.2))
    wrapped = np.maximum.reduce(np.split(canvas, 3, axis=1))
    return cv2.GaussianBlur(wrapped, (0, 0), 1.6).astype(np.float32)


def _grow_vessel(
    canvas: FloatArray,
    random: np.random.Generator,
    start: NDArray[np.float64],
    heading: float,
    thickness: float,
) -> None:
    point = start
    while thickness > 0.9:
        heading += random.normal(0, 0.28)
        following = point + random.uniform(9, 16) * np.array([np.cos(heading), np.sin(heading)])
        ends = [tuple(int(v) for v in p) for p in (point, following)]
        cv2.line(canvas, ends[0], ends[1], min(1.0, 0.3 + 0.18 * thickness), round(thickness), cv2.LINE_AA)
        if random.random() < 0.16:
            _grow_vessel(canvas, random, following, heading + random.choice([-0.8, 0.8]), thickness * 0.7)
        point, thickness = following, thickness * 0.965


# --- geometry ----------------------------------------------------------------------------------------------


def _centre_line(bend: FloatArray, depth: FloatArray) -> FloatArray:
    """(2, N): x and y of the tube's axis; it passes the camera at the origin."""
    amplitude, frequency, phase = (column[:, None] for column in bend.T)
    return (amplitude * (np.sin(frequency * depth + phase) - np.sin(phase))).astype(np.float32)


def _from_axis(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """(2, N): where points are beside the tube's axis, x and y."""
    return points[:, :2].T - _centre_line(anatomy.bend, points[:, 2])


def _wall_distance(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """(N,): how far inside the wall a point is; not Euclidean near folds, see MARCH_CAUTION."""
    folds, depth, offset = anatomy.folds, points[:, 2], _from_axis(anatomy, points)
    distance = np.sqrt((offset**2).sum(axis=0)) + 1e-6
    cosine, sine = offset / distance
    radius = 1 + 0.08 * cosine * sine
    for i in range(len(folds.depth)):
        turned = cosine * np.cos(folds.azimuth[i]) + sine * np.sin(folds.azimuth[i])
        wavy = folds.lean[i] * (turned + 1.2 * cosine * sine)
        ridge = ((depth - folds.depth[i] - wavy) / folds.width[i]) ** 2
        # Semilunar: high on one side, almost gone on the other.
        radius -= folds.height[i] * (0.5 + 0.5 * turned) / ((1 + ridge) * (1 + 0.5 * ridge))
    return radius - distance


def _polyp_distance(polyp: Polyp, points: FloatArray) -> FloatArray:
    local = (points - polyp.center) @ polyp.axes.T / polyp.radii
    lobes = (0.032 * np.sin(local @ polyp.waves + polyp.phases)).sum(axis=1)
    return (np.sqrt((local**2).sum(axis=1)) - 1 - lobes) * polyp.radii.min()


def _share_of_polyp(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """(N,) in [0, 1]: 1 on the polyp, 0 on the wall, in between where the mucosa runs up onto the bump."""
    nearer = _wall_distance(anatomy, points) - _polyp_distance(anatomy.polyp, points)
    return np.clip(0.5 + 0.5 * nearer / SOFTNESS, 0, 1)


def _scene_distance(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """Smooth union of wall and polyp, so that they do not meet in a crease."""
    wall, polyp = _wall_distance(anatomy, points), _polyp_distance(anatomy.polyp, points)
    share = np.clip(0.5 + 0.5 * (wall - polyp) / SOFTNESS, 0, 1)
    return wall + (polyp - wall) * share - SOFTNESS * share * (1 - share)


def _facing(target: FloatArray, random: np.random.Generator) -> FloatArray:
    """(3, 3) rotation of a camera at the origin that has the target in view, but not in its middle."""
    ahead = _floats([0, 0, 1]) * 0.62 + 0.7 * target / np.linalg.norm(target)
    ahead[:2] += random.uniform(-0.12, 0.12, 2).astype(np.float32)
    ahead /= np.linalg.norm(ahead)
    roll = random.uniform(0, 2 * np.pi)
    right = np.cross(_floats([np.sin(roll), np.cos(roll), 0]), ahead)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(ahead, right), ahead]).astype(np.float32)


def _camera_rays(size: tuple[int, int], rotation: FloatArray) -> FloatArray:
    """(H*W, 3) unit directions, row-major; equidistant projection, as endoscope lenses nearly are."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = (columns + 0.5 - width / 2) / (width / 2), (rows + 0.5 - height / 2) / (width / 2)
    off_axis = np.hypot(x, y)
    angle = off_axis * np.radians(FIELD_OF_VIEW / 2)
    sideways = np.sin(angle) / np.maximum(off_axis, 1e-6)
    rays = np.stack([x * sideways, y * sideways, np.cos(angle)], axis=-1).reshape(-1, 3)
    return (rays @ rotation).astype(np.float32)


def _march(anatomy: Anatomy, rays: FloatArray) -> FloatArray:
    """(N, 3): where each ray from the origin meets the mucosa."""
    travelled = np.full(len(rays), 0.05, np.float32)
    moving = np.arange(len(rays))
    for _ in range(MARCH_STEPS):
        gap = _scene_distance(anatomy, rays[moving] * travelled[moving, None])
        travelled[moving] += MARCH_CAUTION * gap
        moving = moving[(gap > 1e-3) & (travelled[moving] < FARTHEST)]
        if not len(moving):
            break
    return rays * travelled[:, None]


def _normals(anatomy: Anatomy, points: FloatArray) -> FloatArray:
    """(N, 3) unit normals into the lumen, from the gradient of the distance."""
    step = 4e-3
    corners = _floats([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    gradient = sum(corner * _scene_distance(anatomy, points + step * corner)[:, None] for corner in corners)
    return _unit(np.asarray(gradient))


def _floats(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


# --- light -------------------------------------------------------------------------------------------------


def _noise(lattice: FloatArray, points: FloatArray) -> FloatArray:
    """(N,) in [0, 1]: smooth value noise, one cell a unit of length, periodic over the lattice."""
    cell = np.floor(points).astype(np.int64)
    within = (points - cell).astype(np.float32)
    within = within * within * (3 - 2 * within)
    total = np.zeros(len(points), np.float32)
    for corner in np.ndindex(2, 2, 2):
        index = (cell + corner) % len(lattice)
        weight = np.where(np.array(corner) == 1, within, 1 - within).prod(axis=1)
        total += weight * lattice[index[:, 0], index[:, 1], index[:, 2]]
    return total


def _texture(texture: FloatArray, down: FloatArray, across: FloatArray) -> FloatArray:
    """(N,): bilinear samples of an (h, w) texture that repeats each unit of `down` and of `across`."""
    height, width = texture.shape
    row, column = down * height, across * width
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    total = np.zeros(len(down), np.float32)
    for i, j in np.ndindex(2, 2):
        weight = np.abs(1 - i - (row - top)) * np.abs(1 - j - (column - left))
        total += weight * texture[(top + i) % height, (left + j) % width]
    return total


def _roughened(anatomy: Anatomy, points: FloatArray, normals: FloatArray, share: FloatArray) -> FloatArray:
    """Normals with the fine relief of wet mucosa, coarser on the polyp."""
    relief = np.stack([_noise(anatomy.noise, points * 17 + 7.1 * axis) for axis in range(3)], axis=1) - 0.5
    broad = np.stack([_noise(anatomy.noise, points * 7 + 3.3 * axis) for axis in range(3)], axis=1) - 0.5
    strength = 0.16 + 0.1 * share
    return _unit(normals + strength * relief + 0.34 * broad)


def _albedo(anatomy: Anatomy, points: FloatArray, share: FloatArray) -> FloatArray:
    """(N, 3): color of the surface itself."""
    patches = _noise(anatomy.noise, points * 2.3)[:, None]
    grain = _noise(anatomy.noise, points * 38)[:, None]
    wall = anatomy.mucosa * (0.86 + 0.28 * patches) * (0.95 + 0.1 * grain)
    x, y = _from_axis(anatomy, points)
    vessels = _texture(anatomy.vessels, points[:, 2] / FARTHEST, np.arctan2(y, x) / (2 * np.pi))[:, None]
    wall = wall * (1 - vessels * _floats([0.22, 0.55, 0.5]) * (0.35 + 0.65 * patches))
    pits = np.clip((_noise(anatomy.noise, points * 70)[:, None] - 0.4) * 2, 0, 1)
    blotches = _noise(anatomy.noise, points * 6 + 11)[:, None]
    polyp = anatomy.polyp.color * (1 - pits * _floats([0.06, 0.24, 0.22]))
    polyp = polyp * (1 - blotches * _floats([0.1, 0.5, 0.5]) + 0.22)
    return wall + (polyp - wall) * share


def _openness(anatomy: Anatomy, points: FloatArray, normals: FloatArray) -> FloatArray:
    """(N, 1) in [0, 1]: ambient occlusion, dark where wall and polyp meet and behind folds."""
    total = np.zeros(len(points), np.float32)
    reaches = (0.04, 0.1, 0.22)
    for reach in reaches:
        total += np.clip(_scene_distance(anatomy, points + normals * reach) / reach, 0, 1)
    return _floats((total / len(reaches))[:, None] ** 1.3)


def _shade(anatomy: Anatomy, points: FloatArray, rays: FloatArray, share: FloatArray) -> FloatArray:
    """(N, 3) linear radiance: a lamp beside the lens, falling off with the square of the distance."""
    lamp = _floats([0.09, -0.06, 0.0])
    smooth = _normals(anatomy, points)
    normals = _roughened(anatomy, points, smooth, share)
    towards = lamp - points
    distance = np.linalg.norm(towards, axis=1, keepdims=True)
    towards = towards / distance
    facing = ((0.7 * normals + 0.3 * smooth) * towards).sum(axis=1, keepdims=True)
    # Light scatters inside tissue, so that its terminator is soft: wrap it around by a third.
    openness = _openness(anatomy, points, smooth)
    diffuse = np.clip((facing + 0.33) / 1.33, 0, 1) * (0.35 + 0.65 * openness)
    falloff = 1.25 / (distance**2 + 0.1)
    halfway = _unit(towards - rays)
    alignment = np.clip((normals * halfway).sum(axis=1, keepdims=True), 0, 1)
    gloss = 14 * alignment**380 + 0.1 * alignment**24
    bounced = 0.05 * anatomy.mucosa  # the tube lights itself a little
    light = falloff * (1.75 * diffuse * _albedo(anatomy, points, share) + 0.8 * gloss * openness + bounced)
    return light.astype(np.float32)


def _without_jagged_outlines(radiance: FloatArray, depth: FloatArray) -> FloatArray:
    """(H, W, 3): single dark pixels where a ray only grazed a bump give way to their neighbors."""
    around = np.ones((3, 3), np.uint8)
    jumps = cv2.dilate(depth, around) - cv2.erode(depth, around) > 0.06
    near_jump = cv2.dilate(jumps.astype(np.uint8), around).astype(bool)
    calm = cv2.GaussianBlur(cv2.medianBlur(radiance, 5), (0, 0), 0.8)
    return np.where(near_jump[..., None], calm, radiance).astype(np.float32)


# --- camera ------------------------------------------------------------------------------------------------


def _aperture(size: tuple[int, int]) -> FloatArray:
    """(H, W) in [0, 1]: the image's window, its corners cut and rounded; zero is black."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = np.abs(columns + 0.5 - width / 2), np.abs(rows + 0.5 - height / 2)
    edges = np.stack([x - width / 2, y - height / 2, (x + y - width / 2 - height / 2 + 0.17 * width) / 2**0.5])
    rounding = width / 60
    outside = rounding * np.log(np.exp(edges / rounding).sum(axis=0))  # a soft maximum rounds the corners
    return np.clip(0.5 - outside, 0, 1).astype(np.float32)


def _develop(radiance: FloatArray, aperture: FloatArray, random: np.random.Generator) -> NDArray[np.uint8]:
    """Linear light to a picture: bloom, film-like shoulder, gamma, sensor noise, black frame."""
    height, width = aperture.shape
    bloom = cv2.GaussianBlur(np.minimum(radiance, 4), (0, 0), width / 60)
    exposed = 1 - np.exp(-1.15 * (0.93 * radiance + 0.07 * bloom))
    picture = np.clip(exposed, 0, 1) ** (1 / 1.55)
    picture = cv2.GaussianBlur(picture, (0, 0), width / 900)
    grain = random.normal(0, 1, (height, width, 3)).astype(np.float32)
    picture += 0.012 * cv2.GaussianBlur(grain, (0, 0), 0.7)
    return (np.clip(picture * aperture[..., None], 0, 1) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render synthetic endoscopy scenes with exact masks.")
    parser.add_argument("folder", type=Path, help="folder for the images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 12, 16])
    parser.add_argument("--masks", type=Path, help="folder for the masks, as PNG (default: none are written)")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        scene = render(seed)
        path = arguments.folder / f"synthetic_{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path, quality=92, subsampling=0)
        if arguments.masks:
            arguments.masks.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.mask).save(arguments.masks / f"synthetic_{seed}.png")
        print(f"{path}: the polyp covers {scene.mask.mean():.1%} of it")


if __name__ == "__main__":
    main()
