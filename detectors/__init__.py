"""Pixels in, predictions out. Knows no table and no footage, and never imports ``mining``."""
