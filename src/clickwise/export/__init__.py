"""From a run to an export: a folder that scores raw rows without the run, its data or torch."""
