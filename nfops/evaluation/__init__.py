"""What a model is worth: folds, coarser scans, baselines, intervals, agreement between resolutions, summaries."""
