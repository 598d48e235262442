"""The image's entry point: `python3 -m echo_agent`, configured by the container's environment."""

import os
import sys

from echo_agent.agent import run
from echo_agent.settings import Settings

sys.exit(run(Settings.from_environment(os.environ)))
