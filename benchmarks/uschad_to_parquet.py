"""USC-HAD (`SubjectS/aMtN.mat`) as one Parquet file a subject, for `selfpab-jax records build --source recordings`.

    python benchmarks/uschad_to_parquet.py USC-HAD OUT
    selfpab-jax records build --source recordings OUT --out RECORDS --sensors hip --rate 100 \\
        --timestamp_column null --segment_column segment --label_column label --window_seconds 20

Columns: hip_x, hip_y, hip_z (g, 100 Hz, as recorded), label (activity 1 to 12), segment (a number for each trial).
"""

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

NAME = re.compile(r"a(\d+)t(\d+)\.mat")


def trial(path: Path, segment: int) -> pd.DataFrame:
    """One trial; the label is the file's number, as the field for it is spelled in two ways."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    readings = scipy.io.loadmat(path)["sensor_readings"][:, :3].astype(np.float32)
    frame = pd.DataFrame(readings, columns=["hip_x", "hip_y", "hip_z"])
    return frame.assign(label=np.int16(match[1]), segment=np.int16(segment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with Subject1, Subject2, ...")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    hours = 0.0
    for folder in sorted(arguments.source.glob("Subject*"), key=lambda path: int(path.name.removeprefix("Subject"))):
        paths = sorted(folder.glob("a*t*.mat"))
        table = pd.concat([trial(path, segment) for segment, path in enumerate(paths)], ignore_index=True)
        number = int(folder.name.removeprefix("Subject"))
        table.to_parquet(arguments.out / f"subject_{number:02d}.parquet", index=False)
        hours += len(table) / 100 / 3600
    print(f"{arguments.out}: {len(list(arguments.out.glob('*.parquet')))} subjects, {hours:.1f} h")


if __name__ == "__main__":
    main()
