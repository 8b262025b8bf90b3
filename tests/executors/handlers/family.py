"""A handler with a child of its own, which ignores polite signals."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
below = subprocess.Popen([sys.executable, "-S", "-c", STUBBORN])


def handler(event: Any, context: Any) -> Any:
    told = [os.getpid(), below.pid, int(os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")[2])]
    if event is None:
        return told
    draft = Path(event + ".draft")
    draft.write_text(json.dumps(told))
    draft.rename(event)
    time.sleep(600)
    return None
