"""The encoder at the published size against torch.nn, where PyTorch is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.convert.table import to_torch
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.encoder import sinusoids
from selfpab_jax.model.functional import make_functional

torch = pytest.importorskip("torch", reason="PyTorch is not installed: no parity test against torch.nn")

PUBLISHED = ModelSettings(compute="float32")
FRAMES = 599


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_published_size_layer_by_layer() -> None:
    functional = make_functional(PUBLISHED, 156, 156)
    parameters = functional.initialize(jax.random.key(0))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in to_torch(parameters, PUBLISHED).items()}
    layer = torch.nn.TransformerEncoderLayer(1500, 6, 2048, dropout=0.1, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).eval()
    prefix = "transformer_encoder."
    encoder.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})

    x = np.random.default_rng(0).standard_normal((1, FRAMES, 156), np.float32)
    trace = jax.jit(lambda p, x: functional.build(p).encoder.trace(x))(parameters, jnp.asarray(x))
    with torch.no_grad():
        h = torch.nn.functional.linear(
            torch.from_numpy(x), tensors["emb.lin_proj_layer.weight"], tensors["emb.lin_proj_layer.bias"]
        ) + torch.from_numpy(sinusoids(FRAMES, 1500))
        assert relative(np.asarray(trace.embedding), h.numpy()) < 1e-5
        for depth, module in enumerate(encoder.layers):
            h = module(h)
            assert relative(np.asarray(trace.layers[depth]), h.numpy()) < 1e-5, f"layer {depth}"
