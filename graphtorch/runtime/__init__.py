"""What executables of several backends share while they run.

A backend keeps its own run-time parts in its own folder (see `lowering/cpu/`) until a second one needs the same.
"""
