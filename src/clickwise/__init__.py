"""clickwise: click-through-rate models from raw click logs."""

__version__ = "0.1.0"
