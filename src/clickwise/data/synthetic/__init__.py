"""Data made on the spot, with power-law ids and a signal of known strength: for tests, `tiny/*` recipes, benchmarks."""

from clickwise.data.synthetic.ceiling import Ceiling, best_auc
from clickwise.data.synthetic.generate import (
    VARIANTS,
    SyntheticConfig,
    in_memory,
    synthetic_columns,
    synthetic_spec,
)
from clickwise.data.synthetic.power_law import PowerLaw, power_law_ids
from clickwise.data.synthetic.raw_amazon import synthesize_raw_amazon
from clickwise.data.synthetic.raw_criteo import synthesize_raw_criteo
from clickwise.data.synthetic.raw_outbrain import synthesize_raw_outbrain
from clickwise.data.synthetic.signal import Signal, SignalConfig, build_signal
from clickwise.data.synthetic.write import synthesize

__all__ = [
    "VARIANTS", "Ceiling", "PowerLaw", "Signal", "SignalConfig", "SyntheticConfig", "best_auc", "build_signal",
    "in_memory", "power_law_ids", "synthesize", "synthesize_raw_amazon", "synthesize_raw_criteo",
    "synthesize_raw_outbrain", "synthetic_columns", "synthetic_spec",
]
