"""What executes a network. `base.py` says what a runtime is; every other module is one."""
