"""What executes a network. `base.py` defines the interface of a runtime; the other modules implement it."""
