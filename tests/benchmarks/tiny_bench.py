"""``python tiny_bench.py ...``: the benchmark of the paper on data that take seconds to train on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.paper.__main__ import main
from benchmarks.paper.presets import Preset, Setting
from engine.families import families

CONFIG = families.get("albef").tiny().model_dump(mode="json")
SHORT = {"multidelete": {"least_steps": 4, "epochs": 2, "draws": 2}}
TRAINING = {"epochs": 2, "batch_size": 16}
TINY = {
    "digits": Preset(
        title="Digits",
        task="retrieval",
        path="digits",
        settings={"albef": Setting(config=CONFIG, training=TRAINING, params=SHORT)},
    ),
    "started": Preset(
        title="Started",
        task="retrieval",
        path="digits",
        settings={"albef": Setting(training=TRAINING, start="digits")},
    ),
    "unknown": Preset(
        title="Unknown", task="telepathy", path="digits", settings={"albef": Setting()}
    ),
}
"""One data set that can be trained on, one that starts from it, one whose task the engine lacks."""

if __name__ == "__main__":
    sys.exit(main(known=TINY))
