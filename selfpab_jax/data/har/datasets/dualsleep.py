"""DualSleep: sleep and wake in nights with polysomnography, lower back and thigh."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from selfpab_jax.data.har.card import DatasetCard, Download
from selfpab_jax.data.har.datasets.harth import BACK_AND_THIGH
from selfpab_jax.data.har.labels import Label
from selfpab_jax.data.har.subject_tables import SubjectTables

ADDRESS = "https://dataverse.no/api/access/datafile/:persistentId/?persistentId=doi:10.18710/UGNIFE/"
FILES = {
    "PSGO_01": "UALFKJ",
    "PSGO_02": "M1H2K5",
    "PSGO_03": "JRWTYR",
    "PSGO_05": "GVQUTW",
    "PSGO_06": "YO4VOI",
    "PSGO_07": "8XHAYE",
    "PSGO_08": "68YKPX",
    "PSGO_09": "FT3HTV",
    "PSGO_10": "ZPJMTP",
    "PSGO_11": "KKIWWG",
    "PSGO_12": "TQKGV5",
    "PSGO_15": "APN0YC",
    "PSGO_16": "PSQYNS",
    "PSGO_17": "UWNJYS",
    "PSGO_22": "TYPN4F",
    "PSGO_24": "NKFFKS",
    "PSGO_27": "IPL5P5",
    "PSGO_28": "ZB1UMB",
    "PSG_06": "QBLJIO",
    "PSG_14": "SOYIXE",
    "PSG_18": "IY94NV",
    "PSG_19": "EAYWGJ",
    "PSG_20": "6WXX0Y",
    "PSG_24": "V4ZGXC",
    "PSG_25": "7XHWEF",
    "PSG_29": "IGECKD",
    "PSG_30": "55JUTX",
    "PSG_35": "YCCE2R",
    "PSG_37": "WMFTE3",
}
"""The publisher's identifier of each subject's file."""
CARD = DatasetCard(
    name="dualsleep",
    version="1.0.0",
    title="DualSleep",
    description=(
        "29 subjects, 11 of them referred for a possible sleep disorder, wore two Axivity AX3 accelerometers for a "
        "night of polysomnography, scored in epochs of 30 s: wake (81), non-REM 1 to 3 (82-84), REM (85), movement "
        "during sleep (86). 82 to 86 are merged into asleep, as in the original. One file per subject; its skin "
        "temperatures are not read."
    ),
    citation="""@article{logacjov2024sleep,
  author = {Logacjov, Aleksej and Skarpsno, Eivind Schjelderup and Kongsvold, Atle and Bach, Kerstin and
    Mork, Paul Jarle},
  title = {A Machine Learning Model for Predicting Sleep and Wakefulness Based on Accelerometry, Skin Temperature and
    Contextual Information},
  journal = {Nature and Science of Sleep},
  volume = {16},
  pages = {699--710},
  year = {2024},
  doi = {10.2147/NSS.S452799},
}""",
    license="see the tab Terms of the DataverseNO page",
    homepage="https://doi.org/10.18710/UGNIFE",
    sensors=BACK_AND_THIGH,
    default_sensors=("back", "thigh"),
    rate_hz=50.0,
    unit="g",
    classes=((81, "wake"), (82, "asleep")),
    downloads=tuple(Download(f"{ADDRESS}{key}", None, name=f"{name}.csv") for name, key in FILES.items()),
    manual="Download the 29 files from https://doi.org/10.18710/UGNIFE: PSGO_01.csv, PSG_06.csv and so on.",
    subjects=29,
)


@dataclass(frozen=True)
class DualSleep(SubjectTables):
    """`PSGO_01.csv`, `PSG_06.csv`: HARTH's columns, and back_temp and thigh_temp."""

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    PATTERN: ClassVar[str] = "PSG*.csv"
    MERGED: ClassVar[Mapping[Label, Label]] = dict.fromkeys((83, 84, 85, 86), 82)
