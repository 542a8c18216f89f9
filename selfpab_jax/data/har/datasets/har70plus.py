"""HAR70+: seven activities of older adults, lower back and thigh."""

from dataclasses import dataclass
from typing import ClassVar

from selfpab_jax.data.har.card import DatasetCard, Download
from selfpab_jax.data.har.datasets.harth import BACK_AND_THIGH, VERSION_1
from selfpab_jax.data.har.subject_tables import SubjectTables

LABELS = (1, 3, 4, 5, 6, 7, 8)
CARD = DatasetCard(
    name="har70plus",
    version="1.0.0",
    title="HAR70+",
    description=(
        "18 fit to frail subjects aged 70 to 95, five of them with walking aids, wore two Axivity AX3 accelerometers "
        "for about 40 minutes of a semi-structured protocol, annotated from the video of a chest-mounted camera. One "
        "file per subject."
    ),
    citation="""@article{ustad2023har70,
  author = {Ustad, Astrid and Logacjov, Aleksej and Trolleb{\\o}, Stine {\\O}verengen and Thingstad, Pernille and
    Vereijken, Beatrix and Bach, Kerstin and Maroni, Nina Skj{\\ae}ret},
  title = {Validation of an Activity Type Recognition Model Classifying Daily Physical Behavior in Older Adults:
    The {HAR70}+ Model},
  journal = {Sensors},
  volume = {23},
  number = {5},
  pages = {2368},
  year = {2023},
  doi = {10.3390/s23052368},
}""",
    license="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/780/har70",
    sensors=BACK_AND_THIGH,
    default_sensors=("back", "thigh"),
    rate_hz=50.0,
    unit="g",
    classes=tuple(pair for pair in VERSION_1.classes if pair[0] in LABELS),
    downloads=(Download("https://archive.ics.uci.edu/static/public/780/har70.zip", None),),
    manual="Download har70.zip from https://archive.ics.uci.edu/dataset/780/har70 and unpack it: 501.csv and so on.",
    subjects=18,
)


@dataclass(frozen=True)
class Har70Plus(SubjectTables):
    """`501.csv` to `518.csv`, with HARTH's columns."""

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    PATTERN: ClassVar[str] = "5[0-9][0-9].csv"
