"""`python -m service` is `foldserve`."""

import sys

from service.cli import main

sys.exit(main())
