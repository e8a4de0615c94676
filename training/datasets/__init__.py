"""Data sets: download, verify, split."""
