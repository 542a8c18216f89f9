"""Which devices talk to one another in a collective, from XLA's three ways to write it."""

import re

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int


def groups_of(attributes: str, devices: int) -> Int[np.ndarray, "groups members"]:
    """Device numbers (positions in the mesh), a row a group.

    Args:
        attributes: of the instruction, with `replica_groups=` or, for a permutation, `source_target_pairs=`.
        devices: of the program.

    Raises:
        ValueError: groups written in a way that is not known here.
    """
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", attributes):
        return np.array([[int(word) for word in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, iota, order = (_numbers(text) for text in found.groups(""))
        return _arranged(iota, order).reshape(shape)
    if found := re.search(
        r"replica_groups=mesh\[([^\]]+)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}", attributes
    ):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        order = _arranged(_numbers(found[2] or str(devices)), _numbers(found[3] or ""))
        chosen = re.findall(r"'(\w+)'(?!:)", found[4])
        if found[4].count("'") == 2 * len(chosen):
            names = list(axes)
            grid = order.reshape(list(axes.values()))
            within = [names.index(name) for name in chosen]
            grid = np.moveaxis(grid, within, range(-len(within), 0))
            return grid.reshape(-1, int(np.prod([axes[name] for name in chosen])))
    if re.search(r"replica_groups=\{\}", attributes):
        return np.arange(devices)[None]
    raise ValueError(f"groups of devices cannot be read: {attributes[:160]}")


def axes_of(groups: Int[np.ndarray, "groups members"], mesh: Mesh) -> tuple[str, ...]:
    """Axes of the mesh along which the members of a group differ."""
    places = np.stack(np.unravel_index(groups, tuple(mesh.shape.values())))
    differ = (places != places[:, :, :1]).any((1, 2))
    return tuple(name for name, differs in zip(mesh.shape, differ, strict=True) if differs)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _arranged(sizes: list[int], order: list[int]) -> np.ndarray:
    grid = np.arange(int(np.prod(sizes))).reshape(sizes)
    return grid.transpose(order) if order else grid
