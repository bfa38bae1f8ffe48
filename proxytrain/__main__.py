import sys

from proxytrain.cli import main

sys.exit(main())
