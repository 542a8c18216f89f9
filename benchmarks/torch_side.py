"""What PyTorch's side of a benchmark does: the same network from torch.nn, as released and at its best."""

import torch
from timing import Turns

from selfpab_jax.model.config import ModelSettings

FRAMES, FEATURES = 599, 156


class Network(torch.nn.Module):
    """The network of the reference from torch.nn's own modules (its attention is scaled_dot_product_attention)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(FEATURES, settings.width)
        layer = torch.nn.TransformerEncoderLayer(
            settings.width, settings.heads, settings.feedforward, settings.dropout, batch_first=True
        )
        self.encoder = torch.nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(settings.width, FEATURES)
        self.register_buffer("positions", torch.zeros(FRAMES, settings.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x) + self.positions))


def device() -> torch.device:
    """The GPU if there is one for torch."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def finish() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step(settings: ModelSettings, batch: int, *, best: bool, compiled: bool = True) -> Turns:
    """Whole training steps.

    Args:
        settings: sizes and dropout; `compute` is not read.
        batch: windows.
        best: bf16 autocast, fused AdamW and torch.compile; otherwise as the original was released: float32 with
            TF32 off, which is torch's default.
        compiled: with torch.compile, which wants a C++ compiler.
    """
    torch.manual_seed(0)
    on = device()
    network = Network(settings).to(on).train()
    options = {"fused": True} if best and on.type == "cuda" else {}
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, (0.9, 0.98), 1e-8, 1e-5, **options)
    x = torch.rand(batch, FRAMES, FEATURES, device=on)
    mask = (torch.rand(batch, FRAMES, FEATURES, device=on) < 0.2).float()

    def loss() -> torch.Tensor:
        with torch.autocast(on.type, torch.bfloat16, enabled=best):
            reconstructed = network(x * (1 - mask))
        error = (reconstructed.float() - x).abs() * mask
        return (error.sum((1, 2)) / mask.sum((1, 2))).mean()

    loss_of = torch.compile(loss) if best and compiled else loss

    def turns(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss_of().backward()
            optimizer.step()
        finish()

    return turns


def forward(settings: ModelSettings, batch: int) -> Turns:
    """Forward passes in float32 to the reconstruction, without dropout."""
    network, x = Network(settings).to(device()).eval(), torch.rand(batch, FRAMES, FEATURES, device=device())

    def turns(count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                network(x)
        finish()

    return turns


def product(size: int, compute: str) -> Turns:
    """Square matrix products."""
    a = torch.randn(size, size, dtype=getattr(torch, compute), device=device())

    def turns(count: int) -> None:
        for _ in range(count):
            torch.matmul(a, a)
        finish()

    return turns
