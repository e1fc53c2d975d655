"""Store the picture that each notebook opens with: the output of its cell tagged `cover`.

python experiments/covers.py, as `make notebooks` does: notebooks/NAME.ipynb ->
notebooks/pictures/NAME.png, or .gif.
"""

import base64
import re
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def cover(path: Path, notebook: Any) -> tuple[Path, bytes]:
    """Where the picture of a stored notebook belongs, and its bytes.

    A picture is an output of PNG, or HTML with a GIF inside. Raises ValueError unless exactly one
    cell is tagged `cover`, and has one.
    """
    cells = [cell for cell in notebook.cells if "cover" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{path}: expected one cell tagged cover; seen {len(cells)}")
    for output in cells[0].outputs:
        data = output.get("data", {})
        moving = re.search(r"data:image/gif;base64,([\w+/=]+)", data.get("text/html", ""))
        if "image/png" in data or moving:
            text, suffix = (moving[1], ".gif") if moving else (data["image/png"], ".png")
            place = path.parent / "pictures" / path.with_suffix(suffix).name
            return place, base64.b64decode(text)
    raise ValueError(f"{path}: expected a picture from the cell tagged cover; run it first")


if __name__ == "__main__":
    import nbformat

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        place, picture = cover(path, nbformat.read(path, as_version=4))
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(picture)
