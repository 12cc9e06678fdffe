"""What has been measured, kept as JSON with a line for each run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusion_walkthrough.files.writing import write_whole


def read_results(path: Path) -> list[dict[str, Any]]:
    """What has been measured so far."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else []


def write_results(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Keep the results in place of the file's."""
    lines = ",\n".join(json.dumps(result) for result in results)
    write_whole(path, f"[\n{lines}\n]\n".encode())
