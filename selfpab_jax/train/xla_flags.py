"""Flags for XLA's compilers: one table, a reason each; published advice, none of it measured by this project yet.

XLA ends the program when it is given a flag that it does not know, and flags come and go with its versions. So a flag
is only set where its name stands in every XLA library that is installed for the platform. `SELFPAB_XLA_FLAGS=none` in
the environment leaves the table out; a flag that the user has set in XLA_FLAGS or LIBTPU_INIT_ARGS stays the user's.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

SWITCH = "SELFPAB_XLA_FLAGS"
Platform = Literal["gpu", "tpu"]
VARIABLES: dict[Platform, str] = {"gpu": "XLA_FLAGS", "tpu": "LIBTPU_INIT_ARGS"}
LIBRARIES: dict[Platform, tuple[str, ...]] = {
    # Both jaxlib and the plugin of a GPU read XLA_FLAGS.
    "gpu": ("jaxlib", "jax_plugins/xla_cuda12", "jax_plugins/xla_cuda13"),
    "tpu": ("libtpu",),
}
CHUNK = 1 << 26  # bytes


@dataclass(frozen=True)
class Flag:
    """A flag and why it is set.

    Args:
        platform: whose compiler it is for.
        name: without dashes.
        value: as written in the environment.
        reason: what it does for this training step, and who advises it.
    """

    platform: Platform
    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"--{self.name}={self.value}"


TABLE = (
    Flag(
        "gpu",
        "xla_gpu_enable_latency_hiding_scheduler",
        "true",
        "Moves collectives so that they overlap with computation: the gathering of fsdp's parameters and the sum of "
        "the gradients. JAX's page on GPU performance advises it, NVIDIA's JAX images set it.",
    ),
    Flag(
        "tpu",
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "true",
        "Optimises the sum of the gradients over the network between slices, which mesh.data crosses on several "
        "slices. MaxText sets it for data parallelism.",
    ),
    Flag(
        "tpu",
        "xla_tpu_data_parallel_opt_different_sized_ops",
        "true",
        "Lets those sums overlap with computation though the parameters differ in size. Goes with the one above.",
    ),
)


def apply_flags(environment: MutableMapping[str, str], site: Path | None = None) -> list[Flag]:
    """Add the table's flags to the environment. Must come before JAX's backends start.

    Args:
        environment: the environment variables, changed in place.
        site: the folder where JAX's libraries are installed; JAX's own where not given.

    Returns:
        The flags that were added.
    """
    if environment.get(SWITCH, "").strip().lower() in ("none", "off", "0"):
        return []
    added = []
    for platform in platforms(environment):
        variable = VARIABLES[platform]
        given = {word.lstrip("-").split("=")[0] for word in environment.get(variable, "").split()}
        wanted = [flag for flag in TABLE if flag.platform == platform and flag.name not in given]
        known = known_flags([flag.name for flag in wanted], libraries(platform, site)) if wanted else set()
        chosen = [flag for flag in wanted if flag.name in known]
        # The user's own come last, where they win.
        environment[variable] = " ".join([*map(str, chosen), *environment.get(variable, "").split()])
        added += chosen
    return added


def platforms(environment: MutableMapping[str, str], devices: Path = Path("/dev")) -> list[Platform]:
    """The platforms of this machine that JAX may use and that the table knows."""
    allowed = set(filter(None, environment.get("JAX_PLATFORMS", "").split(",")))
    found: list[Platform] = []
    if next(devices.glob("nvidia[0-9]*"), None) and (not allowed or allowed & {"cuda", "gpu"}):
        found.append("gpu")
    chips = (*devices.glob("accel[0-9]*"), *devices.glob("vfio/[0-9]*"))
    if chips and find_spec("libtpu") and (not allowed or "tpu" in allowed):
        found.append("tpu")
    return found


def libraries(platform: Platform, site: Path | None = None) -> list[Path]:
    """The shared libraries that read the platform's flags."""
    if site is None:
        spec = find_spec("jaxlib")
        assert spec is not None  # JAX does not work without
        assert spec.origin is not None
        site = Path(spec.origin).parents[1]
    return [library for folder in LIBRARIES[platform] for library in sorted((site / folder).glob("*.so"))]


def known_flags(names: Iterable[str], paths: Iterable[Path]) -> set[str]:
    """The names that every library knows which knows flags of XLA at all.

    A compiled-in name ends with a zero byte; the names in a library's descriptions of its messages, where retired flags
    live on, do not.
    """
    wanted = {name.encode() + b"\0": name for name in names}
    known, readers = set(wanted.values()), 0
    for path in paths:
        found = _present([*wanted, b"xla_dump_to\0"], path)
        if b"xla_dump_to\0" in found:  # a flag of every version: this library reads flags
            readers += 1
            known &= {wanted[name] for name in found if name in wanted}
    return known if readers else set()


def _present(names: list[bytes], path: Path) -> set[bytes]:
    """Which of the names the file holds as whole words."""
    found: set[bytes] = set()
    longest = max(map(len, names))
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            text = tail + chunk
            found.update(name for name in names if name not in found and _whole(name, text))
            tail = text[-longest:]
    return found


def _whole(name: bytes, text: bytes) -> bool:
    at = text.find(name)
    while at > 0 and (text[at - 1 : at].isalnum() or text[at - 1 : at] == b"_"):
        at = text.find(name, at + 1)
    return at >= 0
