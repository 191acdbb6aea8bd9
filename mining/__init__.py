"""Finds the frames of recorded driving that are worth a labeler's time. Start reading at ``mining/pipeline.py``."""

__version__ = "0.1.0"
