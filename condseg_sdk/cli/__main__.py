"""`python -m condseg_sdk.cli`, which works where the `condseg` script is not on the path."""

from condseg_sdk.cli import main

raise SystemExit(main())
