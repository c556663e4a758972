"""Let ``python -m src.train_gan`` find the rooms beside the scripts, like ``python src/train_gan.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
