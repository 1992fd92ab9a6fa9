"""`python -m condseg_sdk.cli`, for where the `condseg` script is not on the path."""

from condseg_sdk.cli import main

raise SystemExit(main())
