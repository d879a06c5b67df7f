"""Gymnasium's Hopper, Walker2d, HalfCheetah and Ant v5 with the dynamics shifts of ODRL, made by edits of their MjSpec.

ODRL (Lyu et al. 2024, https://openreview.net/forum?id=ap4x1kArGy, https://github.com/OffDynamicsRL/off-dynamics-rl)
edits the XML files of Gym's v3; the sizes below are read off those. A shift has ODRL's name without the environment's:

- `gravity-F`, `friction-F`: that factor, any positive one (ODRL has 0.1, 0.5, 2 and 5);
- `kinematic-JOINT-LEVEL`: the range of these joints shrunk to 0.8, 0.5 or 0.2;
- `morph-PART-LEVEL`: other limbs.

Friction differs in one thing: the floor's is scaled too, since MuJoCo takes the greater of two, and ODRL's Hopper with
a factor of 0.1 slides on the floor's 1.0.

Ant neither observes nor pays for contact forces: in ODRL's data, of Gym's v3, they are zero in every row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import mujoco_env
from gymnasium.envs.registration import load_env_creator

from landbridge.errors import InputError

MODELS = {"hopper": "hopper.xml", "walker2d": "walker2d_v5.xml", "halfcheetah": "half_cheetah.xml", "ant": "ant.xml"}
IDS = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "halfcheetah": "HalfCheetah-v5", "ant": "Ant-v5"}
OPTIONS: dict[str, dict[str, Any]] = {"ant": {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}}
LEVELS = ("easy", "medium", "hard")
RANGES = dict(zip(LEVELS, (0.8, 0.5, 0.2), strict=True))  # share of a joint's range that is left
JOINTS = {
    "hopper": {"legjnt": ["leg_joint"], "footjnt": ["foot_joint"]},
    "walker2d": {
        "thighjnt": ["thigh_joint", "thigh_left_joint"],
        "footjnt": ["foot_joint", "foot_left_joint"],
    },
    "halfcheetah": {"thighjnt": ["bthigh", "fthigh"], "footjnt": ["bfoot", "ffoot"]},
    "ant": {
        "hipjnt": [f"hip_{i}" for i in range(1, 5)],
        "anklejnt": [f"ankle_{i}" for i in range(1, 5)],
    },
}

Point = tuple[float, float, float]


def make_env(name: str, shift: str = "none") -> gym.Env:
    """The environment under a shift, with Gymnasium's time limit of 1000 steps.

    Args:
        name: hopper, walker2d, halfcheetah or ant.
        shift: `none`, or one of those at the head of this file.

    Raises:
        InputError: Unknown name or shift; says which there are.
    """
    if name not in IDS:
        raise InputError("--env", f"{name!r} is not known", f"choose one of {', '.join(IDS)}")
    if shift == "none":
        return gym.make(IDS[name], **OPTIONS.get(name, {}))
    model = shifted(name, shift)
    stock = gym.spec(IDS[name])
    kind: Any = load_env_creator(str(stock.entry_point))

    class Shifted(kind):
        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            return model, mujoco.MjData(model)  # by way of an XML file its numbers would lose digits

    return gym.make(replace(stock, entry_point=Shifted), **OPTIONS.get(name, {}))


def shifted(name: str, shift: str) -> mujoco.MjModel:
    """The model of an environment under a shift; see `make_env`."""
    spec = mujoco.MjSpec.from_file(str(Path(mujoco_env.__file__).parent / "assets" / MODELS[name]))
    kind, *words = shift.split("-")
    if kind in FACTORS and len(words) == 1 and re.fullmatch(r"\d+(\.\d+)?", words[0]) and float(words[0]) > 0:
        FACTORS[kind](spec, float(words[0]))
    elif kind == "kinematic" and shift in named(name):
        for joint in JOINTS[name][words[0]]:
            _limit(spec, joint, RANGES[words[1]])
    elif kind == "morph" and shift in named(name):
        MORPHS[name][words[0]](spec, LEVELS.index(words[1]))
    else:
        there = ", ".join(["none", "gravity-0.5", "friction-5", *named(name)])
        raise InputError("--shift", f"{name} has no {shift!r}", f"choose one of {there}, or another factor")
    return spec.compile()


def named(name: str) -> list[str]:
    """The kinematic and morphological shifts of an environment."""
    parts = [f"kinematic-{part}" for part in JOINTS[name]] + [f"morph-{part}" for part in MORPHS[name]]
    return [f"{part}-{level}" for part in parts for level in LEVELS]


def _gravity(spec: mujoco.MjSpec, factor: float) -> None:
    spec.option.gravity *= factor


def _friction(spec: mujoco.MjSpec, factor: float) -> None:
    """Sliding, torsional and rolling, of every geom."""
    for geom in spec.geoms:
        geom.friction *= factor


FACTORS = {"gravity": _gravity, "friction": _friction}


def _limit(spec: mujoco.MjSpec, joint: str, share: float) -> None:
    """Bounds move towards the angle of the range that is nearest to 0."""
    low, high = spec.joint(joint).range
    nearest = np.clip(0.0, low, high)
    spec.joint(joint).range = [nearest + share * (low - nearest), nearest + share * (high - nearest)]


def _capsule(spec: mujoco.MjSpec, name: str, start: Point, end: Point, radius: float | None = None) -> None:
    """Put a capsule between two points of its body's frame [m]."""
    geom, axis = spec.geom(name), np.subtract(end, start)
    geom.fromto = np.full(6, np.nan)  # a file may have given it so; MuJoCo takes either form, not both
    geom.pos = np.add(start, end) / 2
    mujoco.mju_quatZ2Vec(geom.quat, axis / np.linalg.norm(axis))
    geom.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    geom.size[:2] = geom.size[0] if radius is None else radius, np.linalg.norm(axis) / 2


def _torso(spec: mujoco.MjSpec, level: int) -> None:
    """Longer and thicker, above the hip (Hopper, Walker2d: 0.4 m, radius 0.05 m)."""
    length, radius = ((0.48, 0.075), (0.64, 0.1), (0.8, 0.125))[level]
    _capsule(spec, "torso_geom", (0, 0, -0.2), (0, 0, -0.2 + length), radius)


def _hopper_foot(spec: mujoco.MjSpec, level: int) -> None:
    """Smaller about the ankle, which has it from -0.13 to 0.26 m with a radius of 0.06 m."""
    share = (0.8, 0.6, 0.4)[level]
    ankle = spec.joint("foot_joint").pos
    heel, toe = ((ankle[0] + share * x, 0.0, ankle[2]) for x in (-0.13, 0.26))
    _capsule(spec, "foot_geom", heel, toe, share * 0.06)


def _walker2d_leg(spec: mujoco.MjSpec, level: int) -> None:
    """The knee lower: thigh longer, leg shorter, by the same."""
    drop = (0.1, 0.25, 0.4)[level]
    for side in ("", "_left"):
        knee = (0, 0, 0.25 - drop)  # in the frame of the leg, whose middle is 0.25 m below the knee as it is
        _capsule(spec, f"thigh{side}_geom", (0, 0, 0), (0, 0, -0.45 - drop))
        _capsule(spec, f"leg{side}_geom", knee, (0, 0, -0.25))
        spec.joint(f"leg{side}_joint").pos = knee


def _halfcheetah_torso(spec: mujoco.MjSpec, level: int) -> None:
    """Shorter, with head and hips at its ends."""
    half = (0.4, 0.25, 0.1)[level]
    _capsule(spec, "torso", (-half, 0, 0), (half, 0, 0))
    spec.geom("head").pos = [half + 0.1, 0, 0.1]
    spec.body("bthigh").pos, spec.body("fthigh").pos = [-half, 0, 0], [half, 0, 0]


def _halfcheetah_thigh(spec: mujoco.MjSpec, level: int) -> None:
    """Shorter thighs, and shins, which are the same at every level."""
    back = ((0.11, 0, -0.11), (0.08, 0, -0.08), (0.02, 0, -0.02))[level]
    front = ((-0.09, 0, -0.1), (-0.07, 0, -0.08), (-0.04, 0, -0.05))[level]
    for side, knee, ankle in (("b", back, (-0.13, 0, -0.15)), ("f", front, (0.11, 0, -0.13))):
        _capsule(spec, f"{side}thigh", (0, 0, 0), knee)
        _capsule(spec, f"{side}shin", (0, 0, 0), ankle)
        spec.body(f"{side}shin").pos, spec.body(f"{side}foot").pos = knee, ankle


def _ant_legs(*geoms: str) -> Callable[[mujoco.MjSpec, int], None]:
    """Shorter lower legs."""

    def shorten(spec: mujoco.MjSpec, level: int) -> None:
        for geom in geoms:
            x, y, z = spec.geom(geom).fromto[3:] * RANGES[LEVELS[level]]
            _capsule(spec, geom, (0, 0, 0), (x, y, z))

    return shorten


MORPHS: dict[str, dict[str, Callable[[mujoco.MjSpec, int], None]]] = {
    "hopper": {"torso": _torso, "foot": _hopper_foot},
    "walker2d": {"torso": _torso, "leg": _walker2d_leg},
    "halfcheetah": {"torso": _halfcheetah_torso, "thigh": _halfcheetah_thigh},
    "ant": {
        "halflegs": _ant_legs("left_ankle_geom", "right_ankle_geom"),
        "alllegs": _ant_legs("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom"),
    },
}
