"""``python -m thor.runtime.ready``: exit code 0 where every process of this role says on /readyz that it is ready."""

from __future__ import annotations

import sys

from thor.runtime.settings import Settings
from thor.runtime.status import is_ready


def main() -> int:
    """1 and one line that names those that are not."""
    settings = Settings.from_env()
    missing = [name for name in settings.processes if not is_ready(settings, name)]
    if missing:
        sys.stderr.write(f"not ready: {', '.join(missing)}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
