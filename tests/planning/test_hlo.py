"""Parsing of XLA programs: shapes, loops, products, groups of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from selfpab_jax.planning.collectives import axes_of, fraction_sent, groups_of
from selfpab_jax.planning.hlo import ArrayShape, parse, products_of

LOOP = """HloModule m, entry_computation_layout={()->f32[]}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %state = (s32[], /*index=1*/f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %w = bf16[8,8]{1,0} constant({...})
  %half = bf16[4,8]{1,0} convert(%x)
  %y = f32[4,8]{1,0} dot(%half, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="a(b)"}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%next, %y)
}

%condition (state.1: (s32[], f32[4,8])) -> pred[] {
  %state.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(LIMIT)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (start: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %start = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body
}
"""


def test_products_in_loops_count_as_often_as_they_run() -> None:
    products = products_of(parse(LOOP.replace("LIMIT", "7")))
    assert products.flops == {"bf16": 7 * 2 * 4 * 8 * 8}
    assert products.bytes == 7 * (4 * 8 * 2 + 8 * 8 * 2 + 4 * 8 * 4)
    assert products.count == 7


def test_elements_of_tuples_in_the_short_notation() -> None:
    text = LOOP.replace("LIMIT", "7")
    for name, index in (("i", 0), ("x", 1)):
        declared = next(line for line in text.splitlines() if line.strip().startswith(f"%{name} = "))
        text = (
            text.replace(declared + "\n", "")
            .replace(f"(%{name},", f"(%state#{index},")
            .replace(f"(%{name})", f"(%state#{index})")
        )
    assert text.count("#") == 2
    assert products_of(parse(text)) == products_of(parse(LOOP.replace("LIMIT", "7")))
    element = parse(text).computations["body"]["state#1"]
    assert (element.opcode, element.operands, element.shapes) == (
        "get-tuple-element",
        ("state",),
        (ArrayShape("f32", (4, 8)),),
    )


def test_a_loop_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length of the loop"):
        products_of(parse(LOOP.replace("direction=LT", "direction=GT").replace("LIMIT", "7")))


def test_products_of_a_real_program() -> None:
    x, w = jnp.ones((3, 5, 16), jnp.bfloat16), jnp.ones((16, 6), jnp.bfloat16)
    text = jax.jit(lambda x, w: jnp.einsum("btk,kd->btd", x, w)).lower(x, w).compile().as_text()
    assert text is not None
    assert products_of(parse(text)).total_flops == 2 * 3 * 5 * 16 * 6


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 2), ("f32", 4), ("pred", 1), ("u8", 1), ("f8e4m3fn", 1)])
def test_bytes_of_dtypes(dtype: str, size: int) -> None:
    assert ArrayShape(dtype, (3, 4)).bytes == 12 * size
    assert ArrayShape(dtype, ()).bytes == size


@pytest.mark.parametrize(
    ("written", "groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", [[0, 1], [2, 3], [4, 5], [6, 7]], ("tensor",)),
        ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]], ("fsdp", "tensor")),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]], ("data",)),
        ("replica_groups=mesh['axis_0'=8] {'axis_0'}", [[0, 1, 2, 3, 4, 5, 6, 7]], ("data", "fsdp", "tensor")),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2], device_ids=([4,2]T(1,0)) {'axis_1'}",
            [[0, 4], [2, 6], [1, 5], [3, 7]],
            ("data",),
        ),
        ("source_target_pairs={{0,0},{1,2},{2,1}}", [[0, 0], [1, 2], [2, 1]], ("fsdp", "tensor")),
        ("replica_groups={}", [[0, 1, 2, 3, 4, 5, 6, 7]], ("data", "fsdp", "tensor")),
    ],
)
def test_groups_of_devices(written: str, groups: list, axes: tuple[str, ...]) -> None:
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    found = groups_of(f", channel_id=1, {written}, use_global_device_ids=true", 8)
    np.testing.assert_array_equal(found, groups)
    assert axes_of(found, mesh) == axes


def test_unknown_notations_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown notation"):
        groups_of("replica_groups=mesh['a'=8] {'a':(1)2}", 8)


def test_rings() -> None:
    assert fraction_sent("all-gather", 4) == fraction_sent("reduce-scatter", 4) == 0.75
    assert fraction_sent("all-reduce", 4) == 1.5
    assert fraction_sent("collective-permute", 4) == 1
