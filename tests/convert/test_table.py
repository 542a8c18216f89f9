"""Names, shapes and transforms: the same table in both directions, and all problems in one error."""

from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.convert.positions import is_position
from selfpab_jax.convert.table import is_ignored, to_ours, to_torch
from selfpab_jax.errors import ModelError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional

FAMILIES = {"selfpab": (156, 3), "monoselfpab": (78, 3), "lta2v": (96, 2)}


def settings(layers: int = 3) -> ModelSettings:
    return ModelSettings(width=60, heads=6, feedforward=96, layers=layers, compute="float32")


def weights(golden: Path, family: str) -> dict[str, np.ndarray]:
    return dict(np.load(golden / f"tiny_{family}_weights.npz"))


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_bit_identical(golden, family):
    features, layers = FAMILIES[family]
    tensors = weights(golden, family)
    ours = to_ours(tensors, settings(layers))
    abstract = make_functional(settings(layers), features, features).abstract
    assert {name: array.shape for name, array in ours.items()} == {n: shape.shape for n, shape in abstract.items()}
    back = to_torch(ours, settings(layers))
    assert list(back) == list(tensors)
    assert all(back[name].tobytes() == tensors[name].tobytes() for name in tensors)


def test_order_of_the_tensors_does_not_matter(golden):
    tensors = weights(golden, "selfpab")
    ours = to_ours(tensors, settings())
    shuffled = to_ours({name: tensors[name] for name in sorted(tensors, reverse=True)}, settings())
    assert all(np.array_equal(ours[name], shuffled[name]) for name in ours)


def test_everything_wrong_is_listed_at_once(golden):
    tensors = weights(golden, "selfpab")
    del tensors["emb.lin_proj_layer.bias"]
    tensors["transformer_encoder.layers.1.linear1.weight"] = np.zeros((60, 96), np.float32)
    tensors["transformer_encoder.layers.2.norm1.bias"] = np.zeros(60)
    tensors["transformer_encoder.layers.00.norm2.bias"] = np.zeros(60, np.float32)
    tensors["transformer_encoder.layers.3.norm1.bias"] = np.zeros(60, np.float32)
    tensors["prediction_head.mlp.layer0.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ModelError) as error:
        to_ours(tensors, settings())
    for part in (
        "emb.lin_proj_layer.bias is missing",
        "layers.1.linear1.weight has shape 60 x 96, not 96 x 60",
        "layers.2.norm1.bias is float64, not float32",
        "layers.00.norm2.bias is unexpected",
        "layers.3.norm1.bias is unexpected",
        "prediction_head.mlp.layer0.weight is unexpected",
    ):
        assert part in str(error.value)


def test_the_same_the_other_way(golden):
    ours = to_ours(weights(golden, "selfpab"), settings())
    del ours["head.bias"]
    ours["encoder.layers.0.attention.key_bias"] = np.zeros(60, np.float32)
    ours["encoder.final.scale"] = np.zeros(60, np.float32)
    with pytest.raises(ModelError) as error:
        to_torch(ours, settings())
    for part in (
        "head.bias is missing",
        "key_bias has shape 60, not 6 x 10",
        "encoder.final.scale is unexpected",
    ):
        assert part in str(error.value)


def test_only_what_the_table_names_is_ignored():
    assert is_ignored("metrics.0.confmat")
    assert is_ignored("val_metrics.1.measures")
    assert not is_ignored("metric.0.confmat")
    assert not is_ignored("upstream_models.0.metrics.0.x")
    assert is_position("emb.pos_encoder.pe")
    assert is_position("emb.pos_encoder.pos_encoders.0.minute_embed.emb.weight")
    assert not is_position("emb.pos_encoder.pos_encoders.0.second_embed.emb.weight")
