"""HARTH: twelve activities in free living, lower back and thigh."""

from dataclasses import dataclass, replace
from typing import ClassVar

from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.subject_tables import SubjectTables

BACK_AND_THIGH = (
    Sensor("back", "skin of the lower back, about the third lumbar vertebra; x down, y left, z forward"),
    Sensor("thigh", "skin of the right thigh, about 10 cm above the kneecap; x down, y right, z backward"),
)
"""As in HUNT4: the same research group, devices and placement."""
REPOSITORY = "https://github.com/ntnu-ai-lab/harth-ml-experiments"

VERSION_1 = DatasetCard(
    name="harth",
    version="1.2.0",
    title="HARTH",
    description=(
        "22 subjects wore two Axivity AX3 accelerometers for 90 to 120 minutes of their working day; every sample is "
        "annotated from the video of a chest-mounted camera. One file per subject."
    ),
    citation="""@article{logacjov2021harth,
  author = {Logacjov, Aleksej and Bach, Kerstin and Kongsvold, Atle and B{\\aa}rdstu, Hilde Bremseth and
    Mork, Paul Jarle},
  title = {{HARTH}: A Human Activity Recognition Dataset for Machine Learning},
  journal = {Sensors},
  volume = {21},
  number = {23},
  pages = {7853},
  year = {2021},
  doi = {10.3390/s21237853},
}""",
    license="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/779/harth",
    sensors=BACK_AND_THIGH,
    default_sensors=("back", "thigh"),
    rate_hz=50.0,
    unit="g",
    classes=(
        (1, "walking"),
        (2, "running"),
        (3, "shuffling"),
        (4, "stairs (ascending)"),
        (5, "stairs (descending)"),
        (6, "standing"),
        (7, "sitting"),
        (8, "lying"),
        (13, "cycling (sit)"),
        (14, "cycling (stand)"),
        (130, "cycling (sit, inactive)"),
        (140, "cycling (stand, inactive)"),
    ),
    downloads=(Download("https://archive.ics.uci.edu/static/public/779/harth.zip", None),),
    manual="Download harth.zip from https://archive.ics.uci.edu/dataset/779/harth and unpack it: S006.csv and so on.",
    subjects=22,
)
VERSION_2 = replace(
    VERSION_1,
    version="2.0.0",
    description=VERSION_1.description.replace("22 subjects", "31 subjects"),
    license="MIT, the license of its repository (version 1.2 is CC BY 4.0)",
    homepage=REPOSITORY,
    downloads=(Download(f"{REPOSITORY}/archive/refs/tags/v2.0.zip", None, inner="harth"),),
    manual=f"Check out the tag v2.0 of {REPOSITORY}: its folder harth has S006.csv and so on.",
    subjects=31,
)


@dataclass(frozen=True)
class Harth(SubjectTables):
    """`S006.csv`: timestamp, back_x .. thigh_z in g, label; some files also have a column `index`."""

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (VERSION_1, VERSION_2)
    PATTERN: ClassVar[str] = "S[0-9][0-9][0-9].csv"
